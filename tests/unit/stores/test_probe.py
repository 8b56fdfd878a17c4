"""The probe sees through a store that lies, in each way that it can lie."""

from __future__ import annotations

import pytest

from exclave.errors import ExclaveError
from exclave.stores.base import Guarantee, Store
from exclave.stores.directory import DirectoryStore
from exclave.stores.limited import Limited
from exclave.stores.memory import MemoryStore
from exclave.stores.probe import content, probe
from exclave.stores.retrying import Retrying
from exclave.testing.stores import Liar

ALL = frozenset(Guarantee)


def test_an_honest_locked_store_keeps_everything() -> None:
    found = probe(Retrying(Limited(Liar(), 1e9)))
    assert found.kept == ALL
    assert found.broken == {}


@pytest.mark.parametrize(
    ("lie", "guarantee"),
    [
        ("overwrites", Guarantee.CREATE_ONLY),
        ("accepts", Guarantee.CREATE_ONLY),
        ("refuses-and-overwrites", Guarantee.CREATE_ONLY),
        ("ranges-from-start", Guarantee.RANGES),
        ("ranges-whole", Guarantee.RANGES),
        ("ranges-shifted", Guarantee.RANGES),
        ("lists-late", Guarantee.LISTING),
        ("lists-empty", Guarantee.LISTING),
        ("lock-deletes", Guarantee.LOCKED),
        ("lock-admits", Guarantee.LOCKED),
    ],
)
def test_one_lie_costs_its_guarantee(lie: str, guarantee: Guarantee) -> None:
    found = probe(Liar(lie))
    assert guarantee not in found.kept
    assert found.broken[guarantee]
    # What was overwritten cannot be what a lock kept, so that one may go with it; no other may.
    assert found.kept >= ALL - {guarantee, Guarantee.LOCKED}


def test_a_listing_that_ignores_where_to_begin_is_no_listing() -> None:
    store = Liar("lists-everything")
    store.put("charter/00000001", b"x")
    assert Guarantee.LISTING in probe(store).broken


def test_a_store_that_keeps_nothing_keeps_no_guarantee() -> None:
    found = probe(Liar("loses"))
    assert found.kept == frozenset()


@pytest.mark.parametrize("kind", ["memory", "directory"])
def test_stores_without_locks_count_none(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store: Store = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path_factory.mktemp("d"))
    found = probe(store)
    assert found.kept == ALL - {Guarantee.LOCKED}
    assert found.broken == {Guarantee.LOCKED: "this kind of store has no retention locks"}


def test_probing_again_and_again_works_and_stays_in_its_folder() -> None:
    store = MemoryStore()
    for _ in range(3):
        assert Guarantee.LISTING in probe(store).kept
    rows = list(store.list(""))
    assert len(rows) == 3
    assert all(store.get(row.name, limit=2000) == content(row.name) for row in rows)


def test_a_store_that_does_not_answer_is_not_judged() -> None:
    class Dark(MemoryStore):
        def put(self, name: str, data: object) -> None:
            from exclave.stores import refusals

            raise refusals.unreachable(name, "dark")

    with pytest.raises(ExclaveError):
        probe(Dark())
