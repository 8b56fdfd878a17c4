"""What an activation left half restored is removed by the next one; anything else is refused."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from exclave.errors import Refused, Tampered
from exclave.flows import unfinished


class KilledError(Exception):
    pass


def interrupt(place: Path, error: Exception) -> None:
    with suppress(type(error)), unfinished.marked(place):
        (place / "deep").mkdir()
        (place / "deep" / "half").write_bytes(b"h")
        os.symlink("/", place / "link")
        (place / "deep").chmod(0o500)
        raise error


def test_half_restored_is_begun_anew(tmp_path):
    place = tmp_path / "land"
    interrupt(place, KilledError())
    unfinished.refuse_taken(place)
    with unfinished.marked(place):
        assert list(place.iterdir()) == []
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "whole").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["land"]
    assert (place / "whole").exists()


def test_what_is_whole_is_never_removed(tmp_path):
    place = tmp_path / "land"
    with unfinished.marked(place):
        (place / "whole").touch()
    with pytest.raises(Refused, match="not empty"):
        unfinished.refuse_taken(place)
    with pytest.raises(Refused, match="not empty"), unfinished.marked(place):
        pass
    assert (place / "whole").exists()


def test_another_folder_in_its_place_is_not_removed(tmp_path):
    place = tmp_path / "land"
    interrupt(place, KilledError())
    place.rename(tmp_path / "elsewhere")
    place.mkdir()
    (place / "mine").touch()
    with pytest.raises(Refused):
        unfinished.refuse_taken(place)
    assert (place / "mine").exists()


def test_altered_bytes_stay_as_evidence(tmp_path):
    place = tmp_path / "land"
    interrupt(place, Tampered("restored-differs", "x"))
    with pytest.raises(Refused):
        unfinished.refuse_taken(place)
    assert (place / "deep" / "half").exists()
