"""The directory store when things go wrong: killed, full, forbidden, swapped under its feet, raced."""

from __future__ import annotations

import os
import random
import resource
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from exclave.errors import Misconfigured, Refused, Tampered, Unreachable
from exclave.stores import directory
from exclave.stores.directory import INCOMING, DirectoryStore

DATA = secrets.token_bytes(3 << 20)
KILLS = 100


def forked(act: Callable[[], int]) -> int:
    """Run `act` in a child of its own; the child's process id."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        status = act()
    finally:
        os._exit(status)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leftovers(root: Path) -> list[str]:
    return os.listdir(root / INCOMING) if (root / INCOMING).exists() else []


def test_killed_a_hundred_times_in_mid_put(tmp_path: Path) -> None:
    chance = random.Random(20261121)
    killed_in_the_middle = 0
    for turn in range(KILLS):
        reading, writing = os.pipe()

        def write(turn: int = turn, writing: int = writing) -> int:
            store = DirectoryStore(tmp_path)
            for number in range(10_000):
                store.put(f"o/{turn:03}/{number % 7}/{number:05}", DATA)
                os.write(writing, b".")
            return 0

        child = forked(write)
        os.close(writing)
        assert os.read(reading, 1) == b"."
        time.sleep(chance.random() * 0.012)
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        told = 1
        while more := os.read(reading, 4096):
            told += len(more)
        os.close(reading)
        killed_in_the_middle += bool(leftovers(tmp_path))
        store = DirectoryStore(tmp_path)
        rows = list(store.list(f"o/{turn:03}/"))
        assert {row.size for row in rows} == {len(DATA)}
        assert told <= len(rows) <= told + 1
        assert store.get(rows[-1].name, limit=len(DATA)) == DATA
        if turn % 10 == 9:
            store.put(f"after/{turn}", b"the next writer sweeps")
            assert leftovers(tmp_path) == []
            for row in list(store.list("o/")):
                (tmp_path / row.name).unlink()
    assert killed_in_the_middle > KILLS // 10, "the kills missed the interesting moments"


def test_sweeping_spares_a_live_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DirectoryStore(tmp_path)
    store.put("first", b"1")
    (tmp_path / INCOMING / "left-by-a-dead-writer").write_bytes(b"x")
    fsync = os.fsync

    def another_starts(file: int) -> None:
        if INCOMING in os.readlink(f"/proc/self/fd/{file}"):
            monkeypatch.setattr(os, "fsync", fsync)
            assert len(leftovers(tmp_path)) == 2
            DirectoryStore(tmp_path).put("second", b"2")  # sweeps while ours is being written
            assert len(leftovers(tmp_path)) == 1
        fsync(file)

    monkeypatch.setattr(os, "fsync", another_starts)
    store.put("third", b"3")
    assert leftovers(tmp_path) == []
    assert [row.name for row in store.list("")] == ["first", "second", "third"]


def test_a_file_swept_between_making_and_locking_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path)
    store.put("first", b"1")
    flock = directory.fcntl.flock

    def late(file: int, how: int) -> None:
        monkeypatch.setattr(directory.fcntl, "flock", flock)
        (name,) = leftovers(tmp_path)
        (tmp_path / INCOMING / name).unlink()
        flock(file, how)

    monkeypatch.setattr(directory.fcntl, "flock", late)
    store.put("second", b"2")
    assert store.get("second", limit=1) == b"2"


def test_nothing_is_named_before_it_is_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the system calls is the crash safety: content, name, folder; and every new folder's parent."""
    seen: list[str] = []
    fsync, link = os.fsync, os.link

    def note_fsync(file: int) -> None:
        at = os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), tmp_path)
        seen.append("content" if at.startswith(INCOMING) else f"folder {at}")
        fsync(file)

    def note_link(source: str, target: str, **options: object) -> None:
        seen.append(f"name {target}")
        link(source, target, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "link", note_link)
    DirectoryStore(tmp_path).put("a/b/c", b"x")
    assert seen == ["folder .", "folder a", "content", "name c", "folder a/b"]
    seen.clear()
    # The same bytes again, by a process that does not know whether the first one got to the end:
    DirectoryStore(tmp_path).put("a/b/c", b"x")
    assert seen == ["folder .", "folder a", "folder a/b/c", "folder a/b"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 1 MiB where we may mount one, else None."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_told_and_shows_nothing_half(tmp_path: Path, small_disk: Path | None) -> None:
    def fill(root: Path) -> int:
        store = DirectoryStore(root)
        for number in range(100):
            try:
                store.put(f"o/{number:03}", bytes([number]) * 150_000)
            except Unreachable as error:
                rows = [(row.name, row.size) for row in store.list("")]
                whole = rows == [(f"o/{n:03}", 150_000) for n in range(number)]
                return 0 if error.id == "store-full" and whole and not leftovers(root) else 1
        return 2

    if small_disk is not None:
        assert fill(small_disk) == 0

    def limited() -> int:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        return fill(tmp_path / "limited")

    (tmp_path / "limited").mkdir()
    assert ended(forked(limited)) == 0


def test_permission_lost_is_a_setting_to_mend(
    open_path: Path, ordinary_user: Callable[[], AbstractContextManager[None]]
) -> None:
    root = open_path / "site"
    with ordinary_user():
        root.mkdir()
        store = DirectoryStore(root)
        store.put("o/1", b"1")
        (root / "o").chmod(0o500)
        with pytest.raises(Misconfigured) as lost:
            store.put("o/2", b"2")
        assert lost.value.id == "store-forbidden"
        assert [row.name for row in store.list("")] == ["o/1"]
        assert leftovers(root) == []
        (root / "o").chmod(0o000)
        for act in (
            lambda: store.get("o/1", limit=1),
            lambda: store.size("o/1"),
            lambda: list(store.list("")),
        ):
            with pytest.raises(Misconfigured):
                act()


def test_a_root_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "not-mounted")
    for act in (
        lambda: store.put("o", b"1"),
        lambda: store.get("o", limit=1),
        lambda: store.size("o"),
        lambda: list(store.list("")),
        lambda: list(store.strangers()),
    ):
        with pytest.raises(Unreachable) as gone:
            act()
        assert gone.value.id == "store-missing"
    assert not (tmp_path / "not-mounted").exists()
    DirectoryStore.prepare(tmp_path / "not-mounted" / "deeper")
    DirectoryStore.prepare(tmp_path / "not-mounted" / "deeper")
    DirectoryStore(tmp_path / "not-mounted" / "deeper").put("o", b"1")


@pytest.mark.parametrize("what", ["link out", "link in", "dangling", "fifo", "folder", "socketless"])
def test_something_else_in_an_objects_place_is_not_touched(tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    root = tmp_path / "site"
    root.mkdir()
    store = DirectoryStore(root)
    store.put("o/good", b"good")
    place = root / "o" / "x"
    match what:
        case "link out":
            place.symlink_to(outside / "secret")
        case "link in":
            place.symlink_to("good")
        case "dangling":
            place.symlink_to(outside / "new")
        case "fifo":
            os.mkfifo(place)
        case "folder":
            place.mkdir()
        case _:
            place.symlink_to(place)
    for act in (
        lambda: store.get("o/x", limit=100),
        lambda: store.get_range("o/x", 0, 1),
        lambda: store.size("o/x"),
        lambda: store.put("o/x", b"secret"),
    ):
        with pytest.raises(Tampered) as swapped:
            act()
        assert swapped.value.id == "store-swapped"
    assert [row.name for row in store.list("")] == ["o/good"]
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]
    assert list(store.strangers()) == ([] if what == "folder" else ["o/x"])


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_folder_swapped_for_something_else_is_told(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "site", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    store = DirectoryStore(root)
    store.put("r/a/x", b"x")
    (root / "r").rename(tmp_path / "taken")
    if what == "file":
        (root / "r").write_bytes(b"")
    else:
        (root / "r").symlink_to(outside)
    for act in (
        lambda: store.put("r/a/y", b"y"),
        lambda: store.get("r/a/x", limit=1),
        lambda: list(store.list("r/")),
    ):
        with pytest.raises(Tampered):
            act()
    assert list(outside.iterdir()) == []


def test_the_place_of_work_swapped_for_a_link_is_told(tmp_path: Path) -> None:
    root, outside = tmp_path / "site", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / INCOMING).symlink_to(outside)
    with pytest.raises(Tampered):
        DirectoryStore(root).put("x", b"x")
    assert list(outside.iterdir()) == []


def test_of_two_processes_that_create_one_commit_exactly_one_wins(tmp_path: Path) -> None:
    name = "r/x/commit/00000001/0000000000000001"
    for turn in range(25):
        root = tmp_path / str(turn)
        root.mkdir()
        gate, lift = os.pipe()

        def create(data: bytes, root: Path = root, gate: int = gate, lift: int = lift) -> int:
            os.close(lift)
            store = DirectoryStore(root)
            os.read(gate, 1)  # returns for both at once, when the parent closes its end
            try:
                store.put(name, data)
            except Refused as error:
                return 1 if error.id == "store-conflict" else 2
            return 0

        writers = {letter: forked(lambda letter=letter: create(letter * 400_000)) for letter in (b"a", b"b")}  # type: ignore[misc]
        os.close(gate)
        os.close(lift)
        results = {letter: ended(child) for letter, child in writers.items()}
        assert sorted(results.values()) == [0, 1]
        winner = next(letter for letter, status in results.items() if status == 0)
        assert DirectoryStore(root).get(name, limit=400_000) == winner * 400_000


def test_an_interrupted_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, bytes(data)[:1000]))
    DirectoryStore(tmp_path).put("x", DATA[:10_500])
    assert (tmp_path / "x").read_bytes() == DATA[:10_500]


@pytest.mark.parametrize("call", ["fsync", "write", "link", "mkdir"])
def test_a_failing_disk_is_told_and_shows_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store = DirectoryStore(tmp_path)
    store.put("first", b"1")

    def fail(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Unreachable):
        store.put("new/second", b"2")
    monkeypatch.undo()
    assert [row.name for row in store.list("")] == ["first"]
    assert leftovers(tmp_path) == []
    store.put("new/second", b"2")
