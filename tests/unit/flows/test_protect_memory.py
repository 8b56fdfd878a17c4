"""What home remembers is believed only as far as the embassies bear it out."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from exclave.embassies.embassy import Embassy
from exclave.errors import NotThere, Tampered, Unreachable
from exclave.flows import protect as protecting
from exclave.flows.home import Home
from exclave.registers.memory import MemoryRegister
from exclave.sealed.commits import Pack
from exclave.session import Pending, Session
from exclave.stores.memory import MemoryStore
from exclave.testing.stores import Troubled
from exclave.testing.world import Silent, World
from exclave.types import Buffer, EpochId, ObjectId

EPOCH = EpochId("ab" * 8)


class NoCommits(Troubled):
    """A store that the network leaves just before it would get a commit."""

    def put(self, name: str, data: Buffer) -> None:
        """Passes everything else on."""
        if "/commit/" in name:
            raise Unreachable("store-unreachable", "The network is gone")
        super().put(name, data)


class NoManifests(Troubled):
    """A store that has lost what it was given first."""

    def size(self, name: str) -> int:
        """As if no manifest were there."""
        if "/manifest/" in name:
            raise NotThere("object-missing", f"{name} is gone")
        return super().size(name)


def _new_sites() -> list[Embassy]:
    return [Embassy(f"new{number}", MemoryStore()) for number in range(3)]


def _restored(world: World, place: Path, sequence: int | None = None) -> dict[bytes, bytes]:
    world.restore(place, sequence=sequence)
    return {path.name.encode(): path.read_bytes() for path in place.iterdir()}


def test_packs_of_an_interrupted_run_never_share_a_number_with_those_of_a_cloned_home(tmp_path: Path) -> None:
    rnd = random.Random(1)
    stores = [MemoryStore(), MemoryStore()]
    sites = [Embassy(f"site{number}", store) for number, store in enumerate(stores)]
    world = World(tmp_path, MemoryRegister({b"a": rnd.randbytes(900_000)}), embassies=sites)
    world.protect()
    shutil.copytree(tmp_path / "state", tmp_path / "cloned")

    def home(folder: str, files: dict[bytes, bytes]) -> Home:
        return replace(world.home, register=MemoryRegister(files), folder=tmp_path / folder)

    def protect(one: Home, embassies: list[Embassy]) -> int:
        return protecting.protect(one, embassies, copies=2, patience_seconds=5, told=Silent()).sequence

    ours = {b"ours": rnd.randbytes(34_000_000)}
    theirs = {b"theirs": rnd.randbytes(34_000_000)}
    closing = [Troubled(store) for store in stores]
    for one in closing:
        one.fail_after_puts = 2
    with pytest.raises(Unreachable, match="can hold this"):
        protect(home("state", ours), [Embassy(f"site{n}", one) for n, one in enumerate(closing)])
    assert Session(tmp_path / "state" / "session").pending(world.keys.epoch)
    assert protect(home("cloned", theirs), sites) == 2
    assert protect(home("state", ours), sites) == 3
    theirs[b"more"] = b"of it"
    assert protect(home("cloned", theirs), sites) == 4
    numbers = [pack.number for commit in world.commits() for pack in commit.packs]
    assert len(set(numbers)) == len(numbers)
    assert _restored(world, tmp_path / "3", 3) == ours
    assert _restored(world, tmp_path / "4", 4) == theirs


def test_an_index_without_a_catalogue_is_not_believed(tmp_path: Path) -> None:
    files = {b"a": random.Random(1).randbytes(900_000)}
    world = World(tmp_path, MemoryRegister(files))
    world.protect()
    shutil.rmtree(tmp_path / "state" / "catalog")
    world.embassies = _new_sites()
    assert world.protect().new_bytes == 900_000
    assert _restored(world, tmp_path / "out") == files


def test_a_rollback_is_noticed_also_when_a_new_epoch_begins(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegister({b"a": b"1"}))
    world.protect()
    world.rotate()
    with pytest.raises(Tampered, match="do not show snapshot 1"):
        world.protect(_new_sites())


def test_a_rollback_is_noticed_also_when_the_rest_of_the_catalogue_is_damaged(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegister({b"a": b"1"}))
    world.protect()
    for tree in (tmp_path / "state" / "catalog").glob("tree-*"):
        tree.write_bytes(b"")
    with pytest.raises(Tampered, match="do not show snapshot 1"):
        world.protect(_new_sites())


def test_a_half_written_note_of_a_pack_does_not_hide_those_after_it(tmp_path: Path) -> None:
    packs = [Pending(Pack(ObjectId(f"{number:064x}"), number, 4096), bytes(32)) for number in range(3)]
    Session(tmp_path / "session").note(EPOCH, packs[0])
    with (tmp_path / "session").open("ab") as file:
        file.write(b"half of a record")
    again = Session(tmp_path / "session")
    assert again.pending(EPOCH) == packs[:1]
    again.note(EPOCH, packs[1])
    again.note(EPOCH, packs[2])
    assert Session(tmp_path / "session").pending(EPOCH) == packs


def _cut_off_while_publishing(folder: Path) -> tuple[World, MemoryRegister, list[Embassy]]:
    """Snapshot 2 is signed, and only site0 has its commit; then site0 goes dark."""
    stores = [MemoryStore() for _ in range(3)]
    sites = [Embassy(f"site{number}", store) for number, store in enumerate(stores)]
    register = MemoryRegister({b"a": b"1"})
    world = World(folder, register, embassies=sites)
    world.protect()
    register.files[b"b"] = b"2"
    with pytest.raises(Unreachable, match="can hold this"):
        world.protect([sites[0], *(Embassy(one.name, NoCommits(one.store)) for one in sites[1:])])
    register.files[b"c"] = b"3"
    dark = Troubled(stores[0])
    dark.down = True
    return world, register, [Embassy("site0", dark), *sites[1:]]


def test_a_commit_that_only_a_dark_embassy_has_is_published_again_not_contradicted(tmp_path: Path) -> None:
    world, register, sites = _cut_off_while_publishing(tmp_path)
    assert world.protect(sites).sequence == 3
    assert world.protect().holders == {"site0", "site1", "site2"}
    assert _restored(world, tmp_path / "2", 2) == {b"a": b"1", b"b": b"2"}
    assert _restored(world, tmp_path / "3", 3) == register.files


def test_where_its_objects_are_not_held_nothing_else_takes_its_number(tmp_path: Path) -> None:
    world, _, sites = _cut_off_while_publishing(tmp_path)
    sites = [sites[0], *(Embassy(one.name, NoManifests(one.store)) for one in sites[1:])]
    with pytest.raises(Unreachable, match="was signed, and no embassy that answers has it"):
        world.protect(sites)
    assert [commit.sequence for commit in world.commits(sites[1:])] == [1]


def test_what_all_embassies_answer_not_to_have_is_forgotten(tmp_path: Path) -> None:
    register = MemoryRegister({b"a": b"1"})
    world = World(tmp_path, register)
    world.protect()
    nobody = [Embassy(one.name, NoCommits(one.store)) for one in world.embassies]
    with pytest.raises(Unreachable, match="can hold this"):
        world.protect(nobody)
    register.files[b"b"] = b"2"
    assert world.protect().sequence == 2
    assert _restored(world, tmp_path / "out") == register.files


def test_a_dark_embassy_does_not_make_home_read_the_whole_history(tmp_path: Path) -> None:
    stores = [Troubled() for _ in range(3)]
    register = MemoryRegister({b"a": b"0"})
    sites = [Embassy(f"site{number}", store) for number, store in enumerate(stores)]
    world = World(tmp_path, register, embassies=sites)
    calls: list[int] = []
    for number in range(1, 9):
        register.files[b"a"] = b"%d" % number
        stores[1].calls = 0
        stores[0].down = number > 1
        done = world.protect()
        calls.append(stores[1].calls)
    assert set(done.behind) == {"site0"}
    assert calls[-1] == calls[2]
    stores[0].down = False
    assert world.protect().holders == {"site0", "site1", "site2"}
