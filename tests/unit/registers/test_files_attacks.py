"""A tree that changes while it is read, by accident or on purpose."""

import os
import shutil
import subprocess
import threading
import time

import pytest

from exclave.listing import CTIME, NO_CONTENT, SIZE
from exclave.registers.files import reading
from exclave.registers.files.filling import pieces, shortened
from exclave.registers.files.register import FilesRegister
from exclave.testing.comparing import compare
from exclave.testing.observing import Remembered, observe
from exclave.testing.replanting import replant

LONG = (5 << 20) + 3
SMALL = 3000


@pytest.fixture
def outside(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret " * 1000)
    return tmp_path / "outside"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root/before").write_bytes(b"before")
    (tmp_path / "root/zzz after").write_bytes(b"after")
    return tmp_path / "root"


def _disturb(monkeypatch, act, *, times, skip=0):
    """Call `act` just after reading from the victim, `times` times at most."""
    counts = {"seen": 0, "left": times}
    real = {"readv": os.readv, "preadv": os.preadv}

    def wrap(name):
        def disturbed(descriptor, buffers, *rest):
            got = real[name](descriptor, buffers, *rest)
            if (
                os.readlink(f"/proc/self/fd/{descriptor}").split("/")[-1].startswith("victim")
                and len(rest) < 2
            ):
                counts["seen"] += 1
                if counts["seen"] > skip and counts["left"]:
                    counts["left"] -= 1
                    act()
            return got

        return disturbed

    for name in real:
        monkeypatch.setattr(os, name, wrap(name))
    return counts


def _append(path):
    with path.open("ab") as file:
        file.write(b"more")


@pytest.mark.parametrize("size", [SMALL, LONG])
@pytest.mark.parametrize("change", ["truncate", "grow", "rewrite", "replace"])
def test_a_file_that_changes_once_is_read_again(root, monkeypatch, size, change):
    victim = root / "victim"
    victim.write_bytes(os.urandom(size))

    def act():
        if change == "truncate":
            os.truncate(victim, size // 3)
        elif change == "grow":
            _append(victim)
        elif change == "rewrite":
            victim.write_bytes(os.urandom(size))
        else:
            (root / "new").write_bytes(os.urandom(size))
            (root / "new").rename(victim)

    _disturb(monkeypatch, act, times=1)
    seen = observe(FilesRegister(root), Remembered())
    if change == "replace":  # whole, the old one or the new one
        assert len(seen.content[b"victim"]) == size
    else:
        assert seen.content[b"victim"] == victim.read_bytes()
    assert seen.gaps == []
    assert seen.content[b"before"] == b"before"
    assert seen.content[b"zzz after"] == b"after"


@pytest.mark.parametrize("size", [SMALL, LONG])
@pytest.mark.parametrize("change", ["truncate", "grow", "to nothing"])
def test_a_file_that_never_rests_is_kept_and_told(root, monkeypatch, size, change):
    victim = root / "victim"
    victim.write_bytes(b"v" * size)

    def act():
        if change == "grow":
            _append(victim)
        else:
            os.truncate(victim, 0 if change == "to nothing" else victim.stat().st_size * 2 // 3)

    counts = _disturb(monkeypatch, act, times=1000)
    seen = observe(FilesRegister(root), Remembered())
    listing = seen.remembered.folders[b""]
    row = listing.names.index(b"victim")
    if change == "to nothing":
        assert seen.content[b"victim"] == b""
        return
    assert 1000 - counts["left"] >= reading.ATTEMPTS
    assert [(gap.path, gap.why) for gap in seen.gaps] == [(b"victim", "changed while it was read")]
    assert listing.extras[row]["note"] == "changed while it was read"
    assert listing.stats[row, CTIME] == -1
    assert len(seen.content[b"victim"]) == listing.stats[row, SIZE] > 0
    assert set(seen.content[b"victim"]) <= set(b"vmore\0")


@pytest.mark.parametrize("size", [SMALL, LONG])
def test_a_damaged_disk_is_told(root, monkeypatch, size):
    (root / "victim").write_bytes(b"v" * size)

    def act():
        raise OSError(5, "Input/output error")

    _disturb(monkeypatch, act, times=100, skip=1 if size == LONG else 0)
    seen = observe(FilesRegister(root), Remembered())
    assert [(gap.path, gap.why) for gap in seen.gaps] == [(b"victim", "Input/output error")]
    assert seen.content == {b"before": b"before", b"victim": b"", b"zzz after": b"after"}


@pytest.mark.parametrize("becomes", ["link", "fifo", "folder", "nothing", "link to a folder"])
def test_a_file_that_becomes_something_else_is_not_followed(root, outside, monkeypatch, becomes):
    victim = root / "victim"
    victim.write_bytes(b"v")
    real = os.open

    def swap(path, flags, mode=0o777, *, dir_fd=None):
        if path == b"victim" and victim.is_file() and not victim.is_symlink():
            victim.unlink()
            if becomes == "link":
                victim.symlink_to(outside / "secret")
            elif becomes == "fifo":
                os.mkfifo(victim)
            elif becomes == "folder":
                victim.mkdir()
            elif becomes == "link to a folder":
                victim.symlink_to(outside)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    seen = observe(FilesRegister(root), Remembered())
    assert seen.content == {b"before": b"before", b"zzz after": b"after"}
    assert [gap.path for gap in seen.gaps] == ([] if becomes == "nothing" else [b"victim"])


@pytest.mark.parametrize("becomes", ["link", "file", "nothing"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_folder_that_becomes_something_else_is_not_followed(root, outside, monkeypatch, becomes, deep):
    """Between the look at its parent and the way into it; also when something above it is swapped."""
    victim = root / "victim"
    (victim / "a/b").mkdir(parents=True)
    (victim / "a/b/file").write_bytes(b"x")
    (outside / "a/b").mkdir(parents=True)
    (outside / "a/b/secret").write_bytes(b"secret")
    real, swapped = os.open, []

    def swap(path, flags, mode=0o777, *, dir_fd=None):
        if path == (b"b" if deep else b"victim") and swapped.count(path) < 2:
            swapped.append(path)
            if len(swapped) == 2:  # the first time its attributes are read
                victim.rename(root.parent / "moved away")
                if becomes == "link":
                    victim.symlink_to(outside)
                elif becomes == "file":
                    victim.touch()
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap)
    seen = observe(FilesRegister(root), Remembered())
    assert len(swapped) == 2
    assert b"secret" not in b"".join(seen.content.values())
    assert not any(b"secret" in path for path in seen.content)


def test_folders_removed_while_walking_are_left_out(root):
    for number in range(300):
        (root / f"folder {number:03d}/inner").mkdir(parents=True)
        (root / f"folder {number:03d}/inner/file").write_bytes(b"x" * 100)
    go = threading.Event()

    def remove():
        go.wait()
        for number in range(299, -1, -1):
            shutil.rmtree(root / f"folder {number:03d}")

    thread = threading.Thread(target=remove)
    thread.start()
    go.set()
    seen = observe(FilesRegister(root), Remembered())
    thread.join()
    assert seen.gaps == []
    assert seen.content[b"before"] == b"before"


def test_a_busy_writer_never_gets_a_mixture_past_us(root):
    """Every file is all of one letter at any moment when nobody writes; a mixture must be told as a gap."""
    stop = threading.Event()
    names = [root / f"busy {number}" for number in range(20)]
    for name in names:
        name.write_bytes(b"a" * 20_000)

    def rewrite():
        letter = 0
        while not stop.is_set():
            letter = (letter + 1) % 26
            for name in names:
                name.write_bytes(bytes([97 + letter]) * (10_000 + 1000 * letter))

    thread = threading.Thread(target=rewrite)
    thread.start()
    try:
        prior = Remembered()
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            seen = observe(FilesRegister(root), prior)
            told = {gap.path for gap in seen.gaps}
            for path, content in seen.content.items():
                if path.startswith(b"busy") and path not in told:
                    assert len(set(content)) <= 1, "a mixture"
            prior = seen.remembered
    finally:
        stop.set()
        thread.join()
    final = observe(FilesRegister(root), prior)
    for name in names:
        assert final.content[os.fsencode(name.name)] == name.read_bytes()


def test_deeper_than_a_path_may_be_long(tmp_path):
    """Nothing is opened by its whole path."""
    root = tmp_path / "root"
    root.mkdir()
    descriptor = os.open(root, os.O_RDONLY)
    depth, name = 220, b"a folder with quite a long name"
    for number in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        os.mkdir(b"z", dir_fd=descriptor)  # on the way back up each of them is to be opened again
        inner = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
        file = os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor)
        os.write(file, b"%d" % number)
        os.close(file)
    os.close(descriptor)
    try:
        before = len(os.listdir("/proc/self/fd"))
        seen = observe(FilesRegister(root), Remembered())
        assert max(map(len, seen.content)) > 4096
        assert len(seen.content) == depth
        assert replant(seen, tmp_path / "place", keep_owners=True) == []
        assert compare(root, tmp_path / "place") == []
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        subprocess.run(["rm", "-rf", root, tmp_path / "place"], check=True)


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.long)])
def test_many_entries_in_one_folder(root, count):
    for number in range(count):
        (root / f"{number}").symlink_to("x")
    for number in range(0, count, 10):
        (root / f"{number}").unlink()
        (root / f"{number}").write_bytes(b"%d" % number)
    time.sleep(0.06)
    first = observe(FilesRegister(root), Remembered())
    assert len(first.remembered.folders[b""].names) == count + 3
    assert len(first.read) == count // 10 + 2
    assert observe(FilesRegister(root), first.remembered).same == {b""}


def test_names_that_are_no_text(root, tmp_path):
    names = [
        b"\xff",
        b"\xed\xa0\x80",
        b"new\nline",
        b"\xf0\x9f\x92\xbe",
        b"\xee\x80\x80",
        b" ",
        b"-rf",
        b"\x01",
        b"...",
    ]
    for name in names:
        with open(os.fsencode(root) + b"/" + name, "wb") as file:
            file.write(name)
    seen = observe(FilesRegister(root), Remembered())
    assert seen.remembered.folders[b""].names == sorted([*names, b".", b"before", b"zzz after"])
    assert all(seen.content[name] == name for name in names)
    assert replant(seen, tmp_path / "place", keep_owners=True) == []
    assert compare(root, tmp_path / "place") == []


def test_a_file_of_one_hole_costs_nothing(root):
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 40)
    seen = observe(FilesRegister(root), Remembered())
    listing = seen.remembered.folders[b""]
    row = listing.names.index(b"hole")
    assert listing.extras[row] == {"holes": []}
    assert listing.content[row] == NO_CONTENT
    assert listing.stats[row, SIZE] == 1 << 40
    time.sleep(0.06)
    again = observe(FilesRegister(root), observe(FilesRegister(root), seen.remembered).remembered)
    assert again.same == {b""}


def test_a_rewrite_that_puts_the_old_time_back_is_seen(root, monkeypatch):
    """The size and the time of writing can be forged, the time of change cannot."""
    victim = root / "victim"
    victim.write_bytes(b"a" * SMALL)
    os.utime(victim, ns=(10**18, 10**18))

    def act():
        victim.write_bytes(b"b" * SMALL)
        os.utime(victim, ns=(10**18, 10**18))

    _disturb(monkeypatch, act, times=1)
    assert observe(FilesRegister(root), Remembered()).content[b"victim"] == b"b" * SMALL


def test_a_read_that_returns_less_is_no_end(root, monkeypatch):
    """Some file systems return less than was asked for; the next read goes on there."""
    (root / "victim").write_bytes(os.urandom(SMALL))
    real, real_at = os.readv, os.preadv
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: real(descriptor, [buffers[0][:7]]))
    monkeypatch.setattr(
        os, "preadv", lambda descriptor, buffers, *rest: real_at(descriptor, [buffers[0][:999]], *rest)
    )
    seen = observe(FilesRegister(root), Remembered())
    assert seen.content[b"victim"] == (root / "victim").read_bytes()
    assert seen.gaps == []


def test_a_file_of_one_hole_stays_one_beside_a_change(root):
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 20)
    time.sleep(0.06)
    first = observe(FilesRegister(root), Remembered())
    (root / "new").write_bytes(b"new")
    second = observe(FilesRegister(root), first.remembered)
    listing = second.remembered.folders[b""]
    assert listing.content[listing.names.index(b"hole")] == NO_CONTENT


@pytest.mark.parametrize("limit", [1, 3, 7, 8, 9, 100])
def test_content_is_cut_in_equal_portions(limit):
    extents = [(10, 5), (20, 1), (30, 10)]
    portions = list(pieces(extents, limit))
    assert [sum(length for _, length in portion) for portion in portions[:-1]] == [limit] * (
        len(portions) - 1
    )
    flat = [at for portion in portions for offset, length in portion for at in range(offset, offset + length)]
    assert flat == [at for offset, length in extents for at in range(offset, offset + length)]
    assert shortened(extents, 6) == [(10, 5), (20, 1)]
    assert shortened(extents, 0) == []
