"""Copies are checked on the way, bad ones passed over; catching up goes on where it was stopped."""

from __future__ import annotations

import pytest

from exclave.crypto import hashing
from exclave.embassies import copy
from exclave.embassies.fetch import AHEAD, Fetcher
from exclave.embassies.inspect import history
from exclave.errors import NotThere, Tampered, Unreachable
from exclave.testing.sealed_world import world
from exclave.testing.stores import Troubled, tamper
from exclave.types import ObjectId


def contents(store: Troubled) -> dict[str, bytes]:
    return {row.name: store.inner.get(row.name, limit=1 << 30) for row in store.inner.list("")}


def quiet(objects: int, done: int) -> None:
    assert objects <= done


def test_an_embassy_catches_up_from_the_others() -> None:
    made, embassies, stores, _ = world([5, 5, 2])
    told: list[tuple[int, int]] = []
    found = history(embassies, made.register, made.signer.verifier)
    copied = copy.catch_up(
        embassies[2], embassies, made.register, found, lambda objects, done: told.append((objects, done))
    )
    assert (copied.objects, copied.head) == (12, 5)
    assert told[-1] == (12, copied.bytes)
    assert contents(stores[2]) == contents(stores[0])
    again = history(embassies, made.register, made.signer.verifier)
    assert copy.catch_up(embassies[2], embassies, made.register, again, quiet).objects == 0


def test_commits_come_last_and_it_resumes_where_it_stopped() -> None:
    made, embassies, stores, _ = world([3, 0])
    for step in range(1, 12):
        stores[1].fail_after_puts = step % 3
        found = history(embassies, made.register, made.signer.verifier)
        with pytest.raises(Unreachable):
            copy.catch_up(embassies[1], embassies[:1], made.register, found, quiet)
        stores[1].down = False
        have = contents(stores[1])
        for commit in history(embassies[1:], made.register, made.signer.verifier).commits:
            assert all(path in have for path, _, _ in copy.named(commit))
        if len(have) > 8:
            break
    stores[1].fail_after_puts = None
    found = history(embassies, made.register, made.signer.verifier)
    copy.catch_up(embassies[1], embassies[:1], made.register, found, quiet)
    assert contents(stores[1]) == contents(stores[0])


def test_a_bad_source_is_passed_over() -> None:
    made, embassies, stores, snapshots = world([2, 2, 0])
    path = next(iter(snapshots[0]))
    bad = bytearray(snapshots[0][path])
    bad[1000] ^= 1
    tamper(stores[0], path, bytes(bad))
    found = history(embassies, made.register, made.signer.verifier)
    copy.catch_up(embassies[2], embassies, made.register, found, quiet)
    assert contents(stores[2]) == contents(stores[1])


def test_nothing_wrong_is_copied_when_no_source_is_good() -> None:
    made, embassies, stores, snapshots = world([2, 0])
    path = next(iter(snapshots[1]))
    tamper(stores[0], path, snapshots[1][path][:-1] + b"?")
    found = history(embassies, made.register, made.signer.verifier)
    with pytest.raises(Tampered) as damaged:
        copy.catch_up(embassies[1], embassies, made.register, found, quiet)
    assert damaged.value.id == "object-damaged"
    assert path not in contents(stores[1])
    assert history(embassies, made.register, made.signer.verifier).heads["site1"] == 1


def test_a_damaged_object_at_the_target_is_named() -> None:
    made, embassies, stores, snapshots = world([1, 0])
    path = next(iter(snapshots[0]))
    stores[1].inner.put(path, b"short")
    found = history(embassies, made.register, made.signer.verifier)
    with pytest.raises(Tampered, match="damaged at site1"):
        copy.catch_up(embassies[1], embassies, made.register, found, quiet)


def test_an_unreachable_target_cannot_catch_up() -> None:
    made, embassies, stores, _ = world([1, 1])
    stores[1].down = True
    found = history(embassies, made.register, made.signer.verifier)
    with pytest.raises(Unreachable):
        copy.catch_up(embassies[1], embassies, made.register, found, quiet)


def one(stores: list[Troubled], data: bytes = b"content") -> tuple[str, ObjectId, int]:
    for store in stores:
        store.inner.put("r/x", data)
    return "r/x", hashing.object_id(data), len(data)


@pytest.mark.parametrize("bad", [b"CONTENT", b"conten", b"content!", b""])
def test_a_bad_copy_is_reported_and_the_next_one_taken(bad: bytes) -> None:
    _, embassies, stores, _ = world([0, 0])
    wanted = one(stores[1:])
    stores[0].inner.put("r/x", bad)
    fetcher = Fetcher(embassies)
    assert fetcher.get(*wanted) == b"content"
    assert [(found.embassy, found.path) for found in fetcher.bad] == [("site0", "r/x")]


def test_who_does_not_answer_is_asked_last() -> None:
    _, embassies, stores, _ = world([0, 0])
    wanted = one(stores)
    stores[0].down = True
    fetcher = Fetcher(embassies)
    for _ in range(10):
        assert fetcher.get(*wanted) == b"content"
    assert stores[0].calls == 1


def test_the_error_says_whose_move_it_is() -> None:
    _, embassies, stores, _ = world([0, 0, 0])
    with pytest.raises(NotThere):
        Fetcher(embassies).get("r/x", hashing.object_id(b"content"), 7)
    stores[1].inner.put("r/x", b"CONTENT")
    with pytest.raises(Tampered):
        Fetcher(embassies).get("r/x", hashing.object_id(b"content"), 7)
    stores[2].down = True
    with pytest.raises(Unreachable) as dark:
        Fetcher(embassies).get("r/x", hashing.object_id(b"content"), 7)
    assert len(dark.value.why.splitlines()) == 3


def test_many_come_in_order_and_only_a_few_ahead() -> None:
    _, embassies, stores, _ = world([0])
    wanted: list[tuple[str, ObjectId, int]] = []
    for number in range(50):
        data = b"%03d" % number
        stores[0].inner.put(f"r/{number}", data)
        wanted.append((f"r/{number}", hashing.object_id(data), 3))
    drawn = 0

    def draw() -> object:
        nonlocal drawn
        for row in wanted:
            drawn += 1
            yield row

    got: list[bytes] = []
    for data in Fetcher(embassies).get_many(draw()):  # type: ignore[arg-type]
        got.append(data)
        assert drawn <= len(got) + AHEAD
    assert got == [b"%03d" % number for number in range(50)]


def test_many_stop_at_the_first_that_is_nowhere() -> None:
    _, embassies, stores, _ = world([0])
    wanted = one(stores)
    missing = ("r/none", ObjectId("0" * 64), 1)
    reading = Fetcher(embassies).get_many([wanted, missing, wanted])
    assert next(reading) == b"content"
    with pytest.raises(NotThere):
        next(reading)
