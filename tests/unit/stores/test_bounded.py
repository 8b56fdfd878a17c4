"""A host that lists without end is stopped, and only its own embassy suffers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exclave.embassies.inspect import Known, history
from exclave.errors import Tampered
from exclave.flows.verify import verify
from exclave.stores import bounded, object_store
from exclave.stores.base import Listed
from exclave.stores.directory import DirectoryStore
from exclave.stores.memory import MemoryStore
from exclave.stores.object_store import ObjectStore
from exclave.testing.sealed_world import world


class Endless(MemoryStore):
    """Lists its own objects and then others for ever: rising, or always the same."""

    def __init__(self, *, rising: bool) -> None:
        super().__init__()
        self._rising = rising

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        yield from super().list(prefix, after=after)
        for number in itertools.count():
            yield Listed(f"{prefix}z{number:020d}" if self._rising else f"{prefix}zzz", 1)


class Quiet:
    def phase(self, what: str, total: int = 0) -> None:
        pass

    def told(self, files: int, done: int) -> None:
        pass


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_NAMES", 3000)


@pytest.mark.parametrize("rising", [True, False])
@pytest.mark.parametrize("known", [None, Known(1, 9, "ab" * 32)])
def test_an_endless_embassy_is_a_trouble_of_that_embassy_only(rising: bool, known: Known | None) -> None:
    made, embassies, stores, snapshots = world([2, 2])
    liar = Endless(rising=rising)
    for row in stores[1].inner.list(""):
        liar.put(row.name, stores[1].inner.get(row.name, limit=row.size))
    stores[1].inner = liar
    seen = history(embassies, made.register, made.signer.verifier, known=known)
    assert seen.heads == {"site0": 2, "site1": 2}
    assert {trouble.embassy for trouble in seen.troubles} == {"site1"}
    report = verify(embassies, [(made.register, made.signer.verifier)], told=Quiet())
    assert ("site1", "listing-endless") in {(one.embassy, one.id) for one in report.problems}
    assert {one.embassy for one in report.problems} == {"site1"}
    assert report.verdict == "bad"
    assert report.embassies[0].read_objects
    assert snapshots


@pytest.mark.parametrize("names", ["aba", "aa", "ba"])
def test_names_rise(names: str) -> None:
    with pytest.raises(Tampered) as met:
        list(bounded.ascending(Listed(name, 1) for name in names))
    assert met.value.id == "listing-endless"


def test_a_listing_may_have_as_many_names_as_it_may() -> None:
    rows = [Listed(f"{number:08d}", 1) for number in range(3001)]
    assert list(bounded.ascending(rows[:3000])) == rows[:3000]
    with pytest.raises(Tampered):
        list(bounded.ascending(rows))


def test_a_folder_without_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bounded, "MAX_NAMES", 20)
    for number in range(21):
        (tmp_path / f"{number} is no name of ours").touch()
    with pytest.raises(Tampered):
        list(DirectoryStore(tmp_path).list(""))
    with pytest.raises(Tampered):
        list(DirectoryStore(tmp_path).strangers())


@pytest.mark.parametrize("same", [True, False])
def test_a_bucket_without_end_is_not_read_to_it(
    same: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pages = 0

    def listing(*_given: Any, **_options: Any) -> Iterator[list[dict[str, Any]]]:
        nonlocal pages
        for pages in itertools.count(1):
            begin = 0 if same else pages * 1000
            yield [{"path": f"z{begin + at:020d}", "size": 1} for at in range(1000)]

    keys = tmp_path / "keys.toml"
    keys.write_text('access_key_id = "a"\nsecret_access_key = "b"\n')
    keys.chmod(0o600)
    monkeypatch.setattr(object_store.obstore, "list", listing)
    store = ObjectStore("s3://bucket/folder", credentials_file=keys)
    with pytest.raises(Tampered) as met:
        list(store.list(""))
    assert met.value.id == "listing-endless"
    assert pages == (2 if same else 4)
