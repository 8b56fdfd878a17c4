"""Any tree comes back as it was; after any change, what is told on top of the last time is the tree as it is now."""

import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from exclave.registers.files.register import FilesRegister
from exclave.testing.comparing import compare
from exclave.testing.observing import Remembered, observe
from exclave.testing.replanting import replant

NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 47} & set(name) and name not in {b".", b".."}
)
NAMES |= st.sampled_from([b"a", b"b", b"a-", b"a b", b"\xff", b"\n", b"...", b"n" * 255])
TIMES = st.integers(-(10**18), 10**18) | st.integers(6 * 10**18, 8 * 10**18)
MODES = st.integers(0, 0o7777)
SIZES = st.sampled_from(
    [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, (2 << 20) + 1]
)
SIZES |= st.integers(0, 20_000)
DATA = st.lists(
    st.tuples(st.integers(0, 600), st.integers(1, 40)), max_size=4
)  # where, how much: blocks of 4 KiB
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"user.b c", b"user.\xff"]), st.binary(max_size=20), max_size=2
)

ENTRY = st.one_of(
    st.tuples(st.just("file"), SIZES),
    st.tuples(st.just("sparse"), DATA),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=30).filter(lambda target: 0 not in target)),
    st.tuples(st.just("fifo"), st.none()),
    st.tuples(st.just("twin"), st.integers(0, 100)),
    st.tuples(st.just("folder"), st.none()),
)
PLANS = st.lists(st.tuples(st.integers(0, 100), NAMES, ENTRY, MODES, TIMES, XATTRS), max_size=20)
BLOCK = 4096


def plant(root, plan):
    """Make what the plan says, each entry in one of the folders made so far."""
    folders, files, dress = [root], [], []
    for where, name, (kind, detail), mode, mtime, xattrs in plan:
        path = os.path.join(folders[where % len(folders)], name)
        if os.path.lexists(path):
            continue
        if kind == "folder":
            os.mkdir(path)
            folders.append(path)
        elif kind == "file":
            _write(path, [(0, (name * (detail // len(name) + 1))[:detail])], detail)
            files.append(path)
        elif kind == "sparse":
            pieces = [(at * BLOCK, b"d" * (count * BLOCK)) for at, count in detail]
            _write(path, pieces, 700 * BLOCK)
            files.append(path)
        elif kind == "link":
            os.symlink(detail, path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif files:
            os.link(files[detail % len(files)], path)
        else:
            continue
        dress.append((path, kind, mode, mtime, xattrs))
    for path, kind, mode, mtime, xattrs in reversed(dress):
        if kind in {"file", "folder", "sparse"}:
            for name, value in xattrs.items():
                os.setxattr(path, name, value)
        if kind != "link":
            os.chmod(path, mode | (0o700 if kind == "folder" else 0o600))
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)


def _write(path, pieces, size):
    with open(path, "wb") as file:
        for at, data in pieces:
            file.seek(at)
            file.write(data)
        file.truncate(size)


def change(root, plan):
    """Alter, remove and add, led by another plan."""
    entries = sorted(
        os.path.join(folder, name) for folder, inner, names in os.walk(root) for name in inner + names
    )
    for where, name, (kind, detail), mode, _, xattrs in plan:
        path = entries[where % len(entries)] if entries else None
        if path is None or not os.path.lexists(path):
            continue
        what = os.lstat(path).st_mode
        if kind == "fifo" and not stat.S_ISDIR(what):
            os.unlink(path)
        elif kind == "folder" and stat.S_ISDIR(what):
            shutil.rmtree(path)
        elif kind == "link":
            target = os.path.join(root, name)
            if not os.path.lexists(target):
                os.rename(path, target)
        elif kind == "file" and stat.S_ISREG(what):
            _write(path, [(0, b"c" * detail)], detail)
        elif not stat.S_ISLNK(what):
            os.chmod(path, mode | 0o700)
            for attribute, value in xattrs.items():
                if stat.S_ISREG(what) or stat.S_ISDIR(what):
                    os.setxattr(path, attribute, value)
    plant(root, plan)


@given(first=PLANS, second=PLANS, piece_bytes=st.sampled_from([0, 4096, 1_000_001]), seed=st.integers(0, 10))
def test_round_trip(first, second, piece_bytes, seed):
    with tempfile.TemporaryDirectory() as folder:
        root, place = os.path.join(os.fsencode(folder), b"root"), Path(folder) / "place"
        os.mkdir(root)
        plant(root, first)
        register = FilesRegister(Path(os.fsdecode(root)))
        seen = observe(register, Remembered())
        assert seen.gaps == []
        assert replant(seen, place, keep_owners=True, piece_bytes=piece_bytes, seed=seed) == []
        assert compare(Path(os.fsdecode(root)), place) == []

        time.sleep(0.055)
        seen = observe(register, seen.remembered)
        assert observe(register, seen.remembered).slabs == 0
        change(root, second)
        after = observe(register, seen.remembered)
        assert after.gaps == []
        assert replant(after, Path(folder) / "again", keep_owners=True, seed=seed) == []
        assert compare(Path(os.fsdecode(root)), Path(folder) / "again") == []
