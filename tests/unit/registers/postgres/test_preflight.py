"""What a machine abroad lacks is said before the first query finds out."""

from __future__ import annotations

from pathlib import Path

import pytest

from exclave.registers.postgres.preflight import lacking

ENVIRONMENT = {
    "databases": [
        {"name": "land", "extensions": [{"name": "plpgsql"}, {"name": "postgis"}]},
        {"name": "taxes", "extensions": [{"name": "hstore"}]},
        {"name": "template0"},
    ]
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    extensions = tmp_path / "share" / "extension"
    extensions.mkdir(parents=True)
    for name in ("plpgsql", "hstore"):
        (extensions / f"{name}.control").touch()
    return tmp_path / "bin"


def test_an_extension_that_is_not_installed_is_named(programs: Path) -> None:
    (finding,) = lacking(ENVIRONMENT, programs)
    assert (finding.id, finding.level) == ("extension-missing", "warn")
    assert "postgis" in finding.text
    assert "hstore" not in finding.text


def test_nothing_is_said_when_all_are_there(programs: Path) -> None:
    (programs.parent / "share" / "extension" / "postgis.control").touch()
    assert lacking(ENVIRONMENT, programs) == []
    assert lacking({}, programs) == []
