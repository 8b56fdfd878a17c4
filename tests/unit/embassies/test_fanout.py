"""Fan-out: nobody is held up by a site that is slow, dead or hanging, and nothing is counted that is not held."""

from __future__ import annotations

import threading
import time

import pytest

from exclave.embassies.embassy import Embassy
from exclave.embassies.fanout import Fanout
from exclave.errors import Refused, Unreachable
from exclave.stores.memory import MemoryStore
from exclave.testing.stores import Interfering, Troubled

COMMIT = "r/x/commit/00000001/0000000000000001"


def sites(count: int = 3) -> tuple[list[Embassy], list[Troubled]]:
    stores = [Troubled() for _ in range(count)]
    return [Embassy(f"site{number}", store) for number, store in enumerate(stores)], stores


def names(store: Troubled) -> set[str]:
    return {row.name for row in store.inner.list("")}


def test_everything_arrives_everywhere_and_each_buffer_comes_back_once() -> None:
    embassies, stores = sites()
    done: list[int] = []
    with Fanout(embassies, copies=2) as fanout:
        for number in range(50):
            fanout.put(f"o/{number}", b"%d" % number, lambda number=number: done.append(number))  # type: ignore[misc]
        assert fanout.settled() == {"site0", "site1", "site2"}
        assert sorted(done) == list(range(50))
        assert fanout.publish(COMMIT, b"note") == {"site0", "site1", "site2"}
    assert all(len(names(store)) == 51 for store in stores)
    assert fanout.behind == {}


def test_a_site_that_fails_falls_behind_and_gets_no_commit() -> None:
    embassies, stores = sites()
    stores[1].fail_after_puts = 3
    with Fanout(embassies, copies=2) as fanout:
        for number in range(10):
            fanout.put(f"o/{number}", b"x", None)
        assert fanout.settled() == {"site0", "site2"}
        assert fanout.publish(COMMIT, b"note") == {"site0", "site2"}
        assert "the site is dark" in fanout.behind["site1"]
    assert len(names(stores[1])) == 3
    assert COMMIT not in names(stores[1])


def test_buffers_are_reused_only_when_nobody_reads_them() -> None:
    embassies, stores = sites()
    for number, store in enumerate(stores):
        store.seconds_per_put = 0.002 * number
    free = [bytearray(1000) for _ in range(3)]
    available = threading.Semaphore(3)

    def back(buffer: bytearray) -> None:
        free.append(buffer)
        available.release()

    with Fanout(embassies, copies=3) as fanout:
        for number in range(60):
            available.acquire()
            buffer = free.pop()
            buffer[:] = bytes([number]) * 1000
            fanout.put(f"o/{number}", buffer, lambda buffer=buffer: back(buffer))  # type: ignore[misc]
        fanout.settled()
    for store in stores:
        for number in range(60):
            assert store.inner.get(f"o/{number}", limit=1000) == bytes([number]) * 1000


def test_a_hanging_site_delays_once_and_keeps_one_object() -> None:
    embassies, stores = sites()
    stores[2].running.clear()
    done: list[int] = []
    began = time.monotonic()
    with Fanout(embassies, copies=2, patience_seconds=0.2) as fanout:
        for number in range(200):
            fanout.put(f"o/{number}", b"x", lambda number=number: done.append(number))  # type: ignore[misc]
        assert fanout.settled() == {"site0", "site1"}
        assert time.monotonic() - began < 3
        assert "did not keep up" in fanout.behind["site2"]
        assert len(done) == 199  # the one it is writing
        stores[2].running.set()
        for _ in range(200):
            if len(done) == 200:
                break
            time.sleep(0.01)
        assert len(done) == 200
        assert fanout.publish(COMMIT, b"note") == {"site0", "site1"}
    assert COMMIT not in names(stores[2])


def test_a_slow_site_is_waited_for_only_so_long() -> None:
    embassies, stores = sites()
    stores[0].seconds_per_put = 0.05
    with Fanout(embassies, copies=2, patience_seconds=0.3) as fanout:
        for number in range(60):
            fanout.put(f"o/{number}", b"x", None)
        assert fanout.settled() == {"site1", "site2"}
    assert set(fanout.behind) == {"site0"}


def test_a_slow_site_that_is_needed_is_waited_for() -> None:
    embassies, stores = sites()
    stores[0].seconds_per_put = 0.05
    stores[1].down = True
    with Fanout(embassies, copies=2, patience_seconds=0.1) as fanout:
        for number in range(10):
            fanout.put(f"o/{number}", b"x", None)
        assert fanout.settled() == {"site0", "site2"}


def test_a_site_that_stumbles_and_recovers_stays_in_step() -> None:
    embassies, stores = sites()
    with Fanout(embassies, copies=2, patience_seconds=2) as fanout:
        for turn in range(3):
            stores[0].seconds_per_put = 0.1
            for number in range(5):
                fanout.put(f"o/{turn}-{number}", b"x", None)
            stores[0].seconds_per_put = 0
            assert len(fanout.settled()) == 3


def test_too_few_copies_say_why_site_by_site() -> None:
    embassies, stores = sites()
    stores[0].down = stores[2].down = True
    with Fanout(embassies, copies=2) as fanout:
        fanout.put("o", b"x", None)
        with pytest.raises(Unreachable) as missing:
            fanout.settled()
        with pytest.raises(Unreachable):
            fanout.put("o/2", b"x", None)
    assert missing.value.id == "copies-missing"
    assert missing.value.why.splitlines() == [
        "site0: the site is dark: switched off",
        "site2: the site is dark: switched off",
    ]


def test_too_few_embassies_are_refused_before_anything_is_sent() -> None:
    embassies, stores = sites(1)
    with pytest.raises(Unreachable, match="1 of the 2"), Fanout(embassies, copies=2):
        pass
    assert stores[0].calls == 0


def test_another_writer_is_found_out_and_our_commit_is_nowhere() -> None:
    embassies, stores = sites()
    stores[0].inner.put(COMMIT, b"of another writer")
    with Fanout(embassies, copies=3) as fanout:
        fanout.put("o/1", b"x", None)
        with pytest.raises(Refused) as fenced:
            fanout.publish(COMMIT, b"ours")
    assert fenced.value.id == "writer-fenced"
    assert "site0" in fenced.value.why
    assert all(COMMIT not in names(store) for store in stores[1:])


def test_another_writer_at_a_later_site_is_found_out_too() -> None:
    embassies, stores = sites()
    stores[2].inner.put(COMMIT, b"of another writer")
    with Fanout(embassies, copies=2) as fanout, pytest.raises(Refused, match="Another writer"):
        fanout.publish(COMMIT, b"ours")


def test_of_two_writers_at_once_exactly_one_publishes() -> None:
    for _ in range(10):
        stores = [MemoryStore() for _ in range(3)]
        gate = threading.Barrier(2)
        outcome: list[str] = []

        def write(name: str, stores: list[MemoryStore] = stores, gate: threading.Barrier = gate,
                  outcome: list[str] = outcome) -> None:  # fmt: skip
            embassies = [Embassy(f"site{number}", store) for number, store in enumerate(stores)]
            with Fanout(embassies, copies=2) as fanout:
                gate.wait()
                try:
                    fanout.publish(COMMIT, name.encode())
                except Refused:
                    return
                outcome.append(name)

        threads = [threading.Thread(target=write, args=(name,)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcome) == 1
        assert {store.get(COMMIT, limit=10) for store in stores} == {outcome[0].encode()}


def test_the_site_that_decides_may_fail_and_the_next_one_does() -> None:
    embassies, stores = sites()

    def fall(name: str) -> None:
        if name == COMMIT:
            stores[0].down = True

    embassies[0] = Embassy("site0", Interfering(stores[0], fall))
    with Fanout(embassies, copies=2) as fanout:
        fanout.put("o/1", b"x", None)
        assert fanout.publish(COMMIT, b"note") == {"site1", "site2"}


def test_a_conflict_on_an_object_leaves_only_that_site_behind() -> None:
    embassies, stores = sites()
    stores[1].inner.put("o/1", b"rotten")
    with Fanout(embassies, copies=2) as fanout:
        fanout.put("o/1", b"good", None)
        assert fanout.publish(COMMIT, b"note") == {"site0", "site2"}
    assert "o/1 was not stored" in fanout.behind["site1"]


def test_a_bug_in_an_adapter_is_raised_not_swallowed() -> None:
    embassies, _ = sites()
    with Fanout(embassies, copies=1) as fanout:
        fanout.put("..", b"x", None)
        with pytest.raises(ValueError, match="not the name"):
            fanout.settled()


def test_leaving_early_gives_back_every_buffer() -> None:
    embassies, stores = sites()
    stores[0].seconds_per_put = 0.05
    done: list[int] = []
    with Fanout(embassies, copies=3, queue_objects=8) as fanout:
        for number in range(6):
            fanout.put(f"o/{number}", b"x", lambda number=number: done.append(number))  # type: ignore[misc]
    assert sorted(done) == list(range(6))


def test_a_bug_in_what_a_buffer_comes_back_to_is_raised_and_stops_no_site() -> None:
    embassies, stores = sites()

    def broken() -> None:
        raise ValueError("not a buffer of mine")

    with Fanout(embassies, copies=2) as fanout:
        fanout.put("o/1", b"x", broken)
        with pytest.raises(ValueError, match="not a buffer of mine"):
            fanout.settled()
    assert all(names(store) == {"o/1"} for store in stores)
