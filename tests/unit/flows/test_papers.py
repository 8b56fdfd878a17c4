"""The realm's papers: read from a store that may answer anything, kept where only their owner looks."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from exclave.errors import ExclaveError
from exclave.flows import papers
from exclave.stores.memory import MemoryStore
from exclave.testing.realm import make


class Inventive(MemoryStore):
    """A host with a charter for every version that is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def get(self, name: str, *, limit: int) -> bytes:
        self.asked += 1
        held = {row.name for row in self.list("")}
        return super().get(name, limit=limit) if name in held else b"text\n\n\xe2\x80\x94 nobody AAAAAAAA\n"


def test_a_host_that_invents_charters_is_asked_for_one_of_them(tmp_path: Path) -> None:
    realm = make(people=3, threshold=2, registers=("land",))
    annex = tmp_path / "annex.json"
    annex.write_bytes(realm.papers.annex_bytes)
    store = Inventive()
    papers.place(realm.papers, store)
    store.asked = 0
    with pytest.raises(ExclaveError):
        papers.fetch(store, realm.charter.realm, annex)
    assert store.asked == 2


def test_papers_are_their_owners_whatever_the_umask(tmp_path: Path) -> None:
    realm = make(people=3, threshold=2, registers=("land",))
    before = os.umask(0)
    try:
        papers.save(realm.papers, tmp_path / "charter", tmp_path / "charter" / "annex.json")
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "charter", *tmp_path.rglob("*/*")]}
    assert modes == {0o600, 0o700}
