"""Retrying and limiting, with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exclave.errors import ExclaveError, Misconfigured, NotThere, Refused, Tampered, Unreachable
from exclave.stores.base import Listed
from exclave.stores.limited import Limited
from exclave.stores.memory import MemoryStore
from exclave.stores.retrying import Retrying
from exclave.stores.wrapping import innermost


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Failing(MemoryStore):
    """Raises the given errors first, one a call."""

    def __init__(self, *errors: ExclaveError) -> None:
        super().__init__()
        self.errors = list(errors)
        self.calls = 0

    def size(self, name: str) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def dark() -> Unreachable:
    return Unreachable("store-unreachable", "dark")


def retrying(store: MemoryStore, clock: Clock, *, chance: float = 1.0, patience: float = 60) -> Retrying:
    return Retrying(
        store, attempts=6, first_seconds=1, longest_seconds=5, patience_seconds=patience,
        clock=clock, sleep=clock.sleep, chance=lambda: chance,
    )  # fmt: skip


def test_it_tries_again_ever_less_often() -> None:
    clock, store = Clock(), Failing(*[dark() for _ in range(5)])
    assert retrying(store, clock).size("x") == 7
    assert clock.slept == [1, 2, 4, 5, 5]


def test_chance_cuts_a_pause_by_half_at_most() -> None:
    clock, store = Clock(), Failing(*[dark() for _ in range(3)])
    retrying(store, clock, chance=0.0).size("x")
    assert clock.slept == [0.5, 1, 2]


def test_it_gives_up_after_so_many_attempts_with_the_last_error() -> None:
    errors = [dark() for _ in range(9)]
    clock, store = Clock(), Failing(*errors)
    with pytest.raises(Unreachable) as raised:
        retrying(store, clock).size("x")
    assert raised.value is errors[5]
    assert store.calls == 6


def test_it_gives_up_when_patience_ends() -> None:
    clock, store = Clock(), Failing(*[dark() for _ in range(9)])
    with pytest.raises(Unreachable):
        retrying(store, clock, patience=4).size("x")
    assert clock.slept == [1, 2]


@pytest.mark.parametrize("kind", [Refused, NotThere, Tampered, Misconfigured])
def test_an_answer_is_an_answer(kind: type[ExclaveError]) -> None:
    clock, store = Clock(), Failing(kind("x", "no"))
    with pytest.raises(kind):
        retrying(store, clock).size("x")
    assert (store.calls, clock.slept) == (1, [])


class Stuttering(MemoryStore):
    """Listings break off after two rows."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        self.asked.append(after)
        for count, row in enumerate(super().list(prefix, after=after)):
            if count == 2:
                raise dark()
            yield row


def test_a_listing_goes_on_behind_what_was_told() -> None:
    clock, store = Clock(), Stuttering()
    for number in range(7):
        store.put(f"o/{number}", b"x")
    rows = [row.name for row in retrying(store, clock).list("o/")]
    assert rows == [f"o/{number}" for number in range(7)]
    assert store.asked == ["", "o/1", "o/3", "o/5"]


def test_a_listing_that_never_begins_is_given_up() -> None:
    class Dark(MemoryStore):
        def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
            raise dark()

    clock = Clock()
    with pytest.raises(Unreachable):
        list(retrying(Dark(), clock).list(""))
    assert len(clock.slept) == 5


def test_the_rate_is_kept_on_average_in_both_directions() -> None:
    clock = Clock()
    store = Limited(MemoryStore(), 1000, clock=clock, sleep=clock.sleep)
    store.put("a", bytes(500))
    assert clock.slept == []
    store.put("b", bytes(2000))
    assert clock.now == pytest.approx(100.5)
    store.get("a", limit=500)
    assert clock.now == pytest.approx(102.5)
    store.get_range("b", 0, 1000)
    assert clock.now == pytest.approx(103.0)
    store.size("b")
    assert clock.now == pytest.approx(103.0)
    clock.now += 10
    store.put("c", b"1")
    assert clock.now == pytest.approx(113.0)


def test_a_rate_of_nothing_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Limited(MemoryStore(), 0)


def test_the_adapter_is_found_under_its_wrappers() -> None:
    store = MemoryStore()
    assert innermost(Retrying(Limited(store, 1))) is store
    assert innermost(store) is store
