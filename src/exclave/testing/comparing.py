"""Compares two trees of files in everything that a restore has to give back."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_PIECE_BYTES = 1 << 20


def compare(left: Path, right: Path) -> list[str]:
    """What differs, a line each; empty when the trees are equal.

    Kind, mode, owner, size, time of writing to the nanosecond, content, target, device number, extended attributes
    (ACLs are among them), where a sparse file has data, which names are the same file.
    """
    mine, other = describe(left), describe(right)
    found = [f"{path!r} is only on the left" for path in sorted(mine.keys() - other.keys())]
    found += [f"{path!r} is only on the right" for path in sorted(other.keys() - mine.keys())]
    for path in sorted(mine.keys() & other.keys()):
        for name, value in mine[path].items():
            if other[path].get(name) != value:
                found.append(
                    f"{path!r}: {name} is {value!r} on the left, {other[path].get(name)!r} on the right"
                )
    return found


def describe(root: Path) -> dict[bytes, dict[str, object]]:
    """Path -> its properties by name; `b"."` is the root itself."""
    found: dict[bytes, dict[str, object]] = {}
    first: dict[tuple[int, int], bytes] = {}
    top = os.open(root, _FOLDER)
    try:
        for path, folder, name in _entries(top):
            s = os.stat(name, dir_fd=folder, follow_symlinks=False)
            found[path] = _properties(folder, name, s)
            if not stat.S_ISDIR(s.st_mode):
                found[path]["same file as"] = first.setdefault((s.st_dev, s.st_ino), path)
    finally:
        os.close(top)
    return found


def _entries(top: int) -> Iterator[tuple[bytes, int, bytes]]:
    """(path, descriptor of its folder, name), sorted within each folder; to any depth."""
    yield b".", top, b"."
    folders = [b""]
    while folders:
        path = folders.pop()
        descriptor = os.dup(top)
        try:
            for part in path.split(b"/") if path else []:
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            for name in sorted(map(os.fsencode, os.listdir(descriptor))):
                entry = path + b"/" + name if path else name
                yield entry, descriptor, name
                if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    folders.append(entry)
        finally:
            os.close(descriptor)


def _properties(folder: int, name: bytes, s: os.stat_result) -> dict[str, object]:
    found: dict[str, object] = {
        "kind": stat.S_IFMT(s.st_mode),
        "mode": oct(stat.S_IMODE(s.st_mode)),
        "owner": (s.st_uid, s.st_gid),
        "mtime": s.st_mtime_ns,
        "xattrs": _xattrs(b"/proc/self/fd/%d/%s" % (folder, name)),
    }
    if stat.S_ISLNK(s.st_mode):
        found["target"] = os.readlink(name, dir_fd=folder)
    elif stat.S_ISREG(s.st_mode):
        found["size"] = s.st_size
        descriptor = os.open(name, _FILE, dir_fd=folder)
        try:
            found["data"] = _data(descriptor, s.st_size)
            found["content"] = _content(descriptor)
        finally:
            os.close(descriptor)
    elif stat.S_ISBLK(s.st_mode) or stat.S_ISCHR(s.st_mode):
        found["device"] = s.st_rdev
    return found


def _xattrs(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _data(descriptor: int, size: int) -> list[tuple[int, int]]:
    """(begin, end) of the data of a file, between its holes."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        at = os.lseek(descriptor, begin, os.SEEK_HOLE)
        found.append((begin, at))
    return found


def _content(descriptor: int) -> str:
    digest = hashlib.sha256()
    offset = 0
    while piece := os.pread(descriptor, _PIECE_BYTES, offset):
        digest.update(piece)
        offset += len(piece)
    return digest.hexdigest()
