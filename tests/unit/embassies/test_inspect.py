"""Histories: what embassies show, joined; forks raise, holes and bad commits are told and count up to before them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from exclave.crypto.sign import Signer
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import Known, history
from exclave.errors import Tampered, Unreachable
from exclave.sealed import names
from exclave.sealed.commits import FIRST
from exclave.stores.base import Listed
from exclave.stores.directory import DirectoryStore
from exclave.stores.memory import MemoryStore
from exclave.testing.sealed_world import SealedWorld, world
from exclave.testing.stores import tamper


def last(snapshot: dict[str, bytes]) -> tuple[str, bytes]:
    return list(snapshot.items())[-1]


def test_nothing_yet() -> None:
    made, embassies, _, _ = world([0, 0])
    found = history(embassies, made.register, made.signer.verifier)
    assert (found.head_sequence, found.head_hash, found.commits) == (0, FIRST, ())
    assert found.heads == {"site0": 0, "site1": 0}


def test_the_longest_chain_and_everybodys_head() -> None:
    made, embassies, stores, _ = world([3, 5, 0, 4])
    stores[3].down = True
    found = history(embassies, made.register, made.signer.verifier)
    assert [commit.sequence for commit in found.commits] == [1, 2, 3, 4, 5]
    assert found.head_hash == made.previous
    assert found.hash_of(5) == made.previous
    assert found.hash_of(0) == FIRST
    assert found.hash_of(6) is None
    assert found.heads == {"site0": 3, "site1": 5, "site2": 0}
    assert "switched off" in found.unreachable["site3"]


def test_nobody_answers() -> None:
    made, embassies, stores, _ = world([1, 1])
    for store in stores:
        store.down = True
    with pytest.raises(Unreachable) as dark:
        history(embassies, made.register, made.signer.verifier)
    assert dark.value.id == "embassies-unreachable"
    assert len(dark.value.why.splitlines()) == 2


def test_a_hole_counts_up_to_before_it() -> None:
    made, embassies, stores, snapshots = world([4, 4])
    tamper(stores[0], last(snapshots[1])[0], None)
    found = history(embassies, made.register, made.signer.verifier)
    assert found.heads == {"site0": 1, "site1": 4}
    assert found.head_sequence == 4
    assert [(one.embassy, one.path, one.why) for one in found.troubles] == [
        ("site0", last(snapshots[2])[0], "commit 2 is missing before it")
    ]


@pytest.mark.parametrize("place", [30, 200, -40, -3000])
def test_a_flipped_bit_counts_up_to_before_it(place: int) -> None:
    made, embassies, stores, snapshots = world([4, 4])
    path, note = last(snapshots[2])
    bad = bytearray(note)
    bad[place] ^= 1
    tamper(stores[1], path, bytes(bad))
    found = history(embassies, made.register, made.signer.verifier)
    assert found.heads == {"site0": 4, "site1": 2}
    assert [(one.embassy, one.path) for one in found.troubles] == [("site1", path)]


def test_commits_swapped_between_numbers_registers_and_writers_are_bad() -> None:
    made, embassies, stores, snapshots = world([3, 3, 3])
    tamper(stores[0], last(snapshots[2])[0], last(snapshots[1])[1])
    other = SealedWorld(signer=made.signer)
    tamper(stores[1], last(snapshots[2])[0], last(other.snapshot())[1])
    stranger = SealedWorld(signer=Signer("writer", secrets.token_bytes(64)))
    stranger.register, stranger.sequence, stranger.previous = made.register, 2, made.previous
    tamper(stores[2], last(snapshots[2])[0], stranger.commit()[1])
    found = history(embassies, made.register, made.signer.verifier)
    assert found.heads == {"site0": 2, "site1": 2, "site2": 2}
    assert len(found.troubles) == 3


def test_two_signed_commits_of_one_number_are_a_fork() -> None:
    made, embassies, stores, snapshots = world([3, 2])
    made.sequence, made.previous = 2, made.previous
    rival = SealedWorld(signer=made.signer)
    rival.realm, rival.register, rival.epoch, rival.sequence = made.realm, made.register, made.epoch, 2
    rival.previous = history(embassies, made.register, made.signer.verifier).hash_of(2) or ""
    rival.store(rival.snapshot(), [stores[1]])
    with pytest.raises(Tampered) as fork:
        history(embassies, made.register, made.signer.verifier)
    assert fork.value.id == "history-forked"
    assert snapshots


def test_a_signed_commit_that_follows_another_past_is_a_fork() -> None:
    made, embassies, stores, _ = world([3])
    made.previous = "ab" * 32
    made.store(made.snapshot(), [stores[0]])
    with pytest.raises(Tampered, match="two histories"):
        history(embassies, made.register, made.signer.verifier)


def test_an_old_term_that_writes_on_is_a_fork() -> None:
    made, embassies, stores, snapshots = world([3])
    heir = SealedWorld(term=2, signer=made.signer)
    heir.realm, heir.register, heir.epoch = made.realm, made.register, made.epoch
    heir.sequence = 2
    heir.previous = history(embassies, made.register, made.signer.verifier).hash_of(2) or ""
    heir.store(heir.snapshot(), [stores[0]])  # takes over after 2, while the old writer made its 3
    with pytest.raises(Tampered, match="two histories"):
        history(embassies, made.register, made.signer.verifier)
    assert snapshots


def test_a_new_term_goes_on_and_several_writers_may_be_named() -> None:
    made, embassies, stores, _ = world([3])
    heir = SealedWorld(term=7)
    heir.realm, heir.register, heir.sequence, heir.previous = made.realm, made.register, 3, made.previous
    heir.store(heir.snapshot(), [stores[0]])
    found = history(embassies, made.register, [made.signer.verifier, heir.signer.verifier])
    assert [(commit.term, commit.sequence) for commit in found.commits] == [(1, 1), (1, 2), (1, 3), (7, 4)]


def test_a_known_commit_saves_reading_the_ones_before_it() -> None:
    made, embassies, stores, _ = world([30, 30, 28])
    full = history(embassies, made.register, made.signer.verifier)
    known = Known(1, 29, full.hash_of(29) or "")
    for store in stores:
        store.calls = 0
    found = history(embassies, made.register, made.signer.verifier, known=known)
    assert found.heads == {"site0": 30, "site1": 30, "site2": 28}
    assert (found.head_sequence, found.head_hash) == (30, full.head_hash)
    assert found.hash_of(29) == full.hash_of(29)
    assert found.hash_of(12) is None
    assert found.troubles == ()
    assert all(store.calls <= 3 for store in stores)


def test_a_known_commit_that_reads_otherwise_is_a_fork_or_a_bad_commit() -> None:
    made, embassies, stores, snapshots = world([3, 3])
    with pytest.raises(Tampered, match="two histories"):
        history(embassies, made.register, made.signer.verifier, known=Known(1, 3, "ab" * 32))
    good = history(embassies, made.register, made.signer.verifier).hash_of(3) or ""
    tamper(stores[0], last(snapshots[2])[0], b"rotten")
    found = history(embassies, made.register, made.signer.verifier, known=Known(1, 3, good))
    assert found.heads == {"site0": 2, "site1": 3}
    assert [one.embassy for one in found.troubles] == ["site0"]


def test_a_laggard_with_a_hole_is_told_with_a_known_commit_too() -> None:
    made, embassies, stores, snapshots = world([6, 4])
    tamper(stores[1], last(snapshots[1])[0], None)
    known = Known(1, 6, made.previous)
    found = history(embassies, made.register, made.signer.verifier, known=known)
    assert found.heads == {"site0": 6, "site1": 1}
    assert [one.why for one in found.troubles] == ["commit 2 is missing before it"]


class OddLister(MemoryStore):
    """A bucket whose host puts a name of his own before all others."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.odd = name

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        yield Listed(prefix + self.odd, 10)
        yield from super().list(prefix, after=after)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "odd",
    [
        " 0000001/0000000000000001",
        "00000001/+000000000000001",
        "\x1b[2Jx",
        "a\nb",
        "../../up",
        "",
        "00000001/1 ",
    ],
)
def test_any_name_that_a_host_lists_is_his_own_trouble(odd: str, *, known: bool) -> None:
    made, embassies, _, snapshots = world([3])
    hostile = OddLister(odd)
    for path, data in snapshots[0].items():
        hostile.put(path, data)
    mine = history(embassies, made.register, made.signer.verifier)
    link = mine.links[1]
    start = Known(link.commit.term, link.commit.sequence, link.id) if known else None
    both = history([*embassies, Embassy("odd", hostile)], made.register, made.signer.verifier, known=start)
    assert both.heads["site0"] == 3
    assert both.head_sequence == 3
    assert all(one.path.isprintable() for one in both.troubles)


@pytest.mark.parametrize("known", [False, True])
def test_an_embassy_that_hides_its_commits_behind_a_link_stops_nobody(tmp_path: Path, *, known: bool) -> None:
    made, embassies, _, _ = world([3])
    (tmp_path / "elsewhere").mkdir()
    place = tmp_path / "store" / names.commits(made.register).rstrip("/")
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    mine = history(embassies, made.register, made.signer.verifier)
    link = mine.links[1]
    start = Known(link.commit.term, link.commit.sequence, link.id) if known else None
    hostile = Embassy("link", DirectoryStore(tmp_path / "store"))
    both = history([*embassies, hostile], made.register, made.signer.verifier, known=start)
    assert both.head_sequence == 3
    assert [one.embassy for one in both.troubles] == ["link"]
