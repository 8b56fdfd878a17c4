"""Whatever is captured comes back, whatever happened in between: random histories through the real flows."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exclave.embassies.embassy import Embassy
from exclave.errors import Misconfigured, Tampered, Unreachable
from exclave.registers.memory import MemoryRegister
from exclave.stores.base import Listed
from exclave.stores.memory import MemoryStore
from exclave.testing.world import World
from exclave.types import Buffer

PAGE = 8192


class Breaking:
    """A store that stops answering after some puts."""

    def __init__(self, inner: MemoryStore, puts: int) -> None:
        self._inner = inner
        self.puts = puts

    def put(self, name: str, data: Buffer) -> None:
        """Passes `puts` of them."""
        if self.puts <= 0:
            raise Unreachable("store-unreachable", "The store does not answer", why="the test cut it off")
        self.puts -= 1
        self._inner.put(name, data)

    def get(self, name: str, *, limit: int) -> bytes:
        """Passed on."""
        return self._inner.get(name, limit=limit)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Passed on."""
        return self._inner.get_range(name, start, length)

    def size(self, name: str) -> int:
        """Passed on."""
        return self._inner.size(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Passed on."""
        return self._inner.list(prefix, after=after)


def _edit(rnd: random.Random, files: dict[bytes, bytes], page: int) -> None:
    """Some files come, go, grow, shrink or change in the middle."""
    for _ in range(rnd.randrange(1, 6)):
        name = b"d%d/f%d" % (rnd.randrange(4), rnd.randrange(12))
        size = rnd.choice([0, 1, 100, PAGE, 70_000, 300_000, 1 << 20, 1_300_000, 2_500_000])
        match rnd.randrange(5):
            case 0:
                files.pop(name, None)
            case 1 | 2 if files.get(name):
                data = bytearray(files[name])
                for _ in range(rnd.randrange(1, 5)):
                    at = rnd.randrange(len(data))
                    data[at : at + 20] = rnd.randbytes(len(data[at : at + 20]))
                if rnd.random() < 0.3:
                    data = data[: rnd.randrange(len(data))]
                files[name] = bytes(data)
            case _:
                files[name] = rnd.randbytes(size) if rnd.random() < 0.7 else bytes(size)
        if page and name in files:
            files[name] += bytes(-len(files[name]) % page)
        if name.split(b"/")[0] in files:
            raise AssertionError("a folder and a file of one name")


def _read(place: Path) -> dict[bytes, bytes]:
    return {
        str(path.relative_to(place)).encode(): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), page=st.sampled_from([0, PAGE]))
def test_every_snapshot_of_a_random_history_restores(seed: int, page: int) -> None:
    rnd = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register = MemoryRegister({b"d0/first": b"x" * PAGE}, page_bytes=page)
        world = World(folder, register)
        wanted: list[dict[bytes, bytes]] = []
        for _ in range(5):
            _edit(rnd, register.files, page)
            wanted.append(dict(register.files))
            assert world.protect().holders == {"site0", "site1", "site2"}
        for number, files in enumerate(wanted, 1):
            world.restore(folder / str(number), sequence=number)
            assert _read(folder / str(number)) == files


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), puts=st.integers(0, 12), page=st.sampled_from([0, PAGE]))
def test_an_interruption_at_any_put_loses_nothing(seed: int, puts: int, page: int) -> None:
    rnd = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        register = MemoryRegister({b"d0/first": b"x" * PAGE}, page_bytes=page)
        stores = [MemoryStore(), MemoryStore()]
        world = World(
            folder, register, embassies=[Embassy(f"site{n}", store) for n, store in enumerate(stores)]
        )
        world.protect()
        before = dict(register.files)
        _edit(rnd, register.files, page)
        breaking = [
            Embassy("site0", Breaking(stores[0], puts)),
            Embassy("site1", Breaking(stores[1], puts + 1)),
        ]
        try:
            world.protect(breaking)
        except Unreachable:
            assert len(world.commits()) in (1, 2)
        _edit(rnd, register.files, page)
        done = world.protect()
        world.restore(folder / "first", sequence=1)
        assert _read(folder / "first") == before
        world.restore(folder / "last", sequence=done.sequence)
        assert _read(folder / "last") == register.files


def test_a_home_that_lost_its_memory_goes_on_without_sending_again(tmp_path: Path) -> None:
    content = random.Random(7).randbytes(3_000_000)
    world = World(tmp_path, MemoryRegister({b"a/b": content, b"c": b"small"}))
    first = world.protect()
    (tmp_path / "state").rename(tmp_path / "lost")
    second = world.protect()
    assert second.sequence == 2
    assert second.full
    assert second.new_bytes == 0
    assert second.stored_bytes < first.stored_bytes / 50
    world.restore(tmp_path / "out", sequence=2)
    assert _read(tmp_path / "out") == {b"a/b": content, b"c": b"small"}


def test_a_home_refuses_when_the_embassies_show_less_than_it_signed(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegister({b"a": b"1"}))
    world.protect()
    empty = [Embassy(f"site{n}", MemoryStore()) for n in range(3)]
    with pytest.raises(Tampered, match="do not show snapshot 1"):
        world.protect(empty)


def test_a_long_chain_is_cut_by_full_manifests(tmp_path: Path) -> None:
    register = MemoryRegister({b"a": b"0"})
    world = World(tmp_path, register, sites=1, copies=1)
    full = []
    for number in range(36):
        register.files[b"a"] = b"%d" % number
        full.append(world.protect().full)
    assert [number for number, is_full in enumerate(full) if is_full] == [0, 33]
    world.restore(tmp_path / "32", sequence=33)
    world.restore(tmp_path / "35", sequence=36)
    assert _read(tmp_path / "32") == {b"a": b"32"}
    assert _read(tmp_path / "35") == {b"a": b"35"}


def test_a_new_epoch_begins_anew_and_old_snapshots_stay(tmp_path: Path) -> None:
    register = MemoryRegister({b"a": b"old" * 9999})
    world = World(tmp_path, register)
    world.protect()
    world.rotate()
    second = world.protect()
    assert second.full
    assert second.new_bytes == 3 * 9999
    world.restore(tmp_path / "1", sequence=1)
    world.restore(tmp_path / "2", sequence=2)
    assert _read(tmp_path / "1") == _read(tmp_path / "2") == register.files


def test_more_copies_than_embassies_is_a_mistake_in_the_settings(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegister({b"a": b"1"}), sites=1, copies=2)
    with pytest.raises(Misconfigured, match="only 1"):
        world.protect()


def test_a_restore_counts_the_files_that_the_snapshot_counted(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegister({b"a": b"1", b"b/empty": b"", b"b/c": b"22"}))
    done = world.protect()
    restored = world.restore(tmp_path / "out")
    assert (restored.files, restored.bytes) == (done.files, done.bytes) == (3, 3)
