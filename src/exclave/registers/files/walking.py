"""Opens folders below a root without ever following a link, and reads their entries into columns.

Every open is relative to the parent's descriptor, so that depth is not limited by PATH_MAX and nobody can lead the
reader out of the root by putting a symbolic link in the place of a folder.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exclave.listing import CTIME, DEVICE, INODE, MTIME, STATS

LINKS, BLOCKS = STATS, STATS + 1  # further columns of `Scan.table`: st_nlink, st_blocks
_COLUMNS = STATS + 2

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT_OPEN = (
    64  # descriptors of a path that stay open; the ones nearest to the top are opened again when needed
)

_LOWEST, _HIGHEST = -(1 << 63), (1 << 63) - 1


def join(folder: bytes, name: bytes) -> bytes:
    """The path of entry `name` of `folder`."""
    return folder + b"/" + name if folder else name


class Ladder:
    """Descriptors of the folders from the top down to the one looked at last."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._names: list[bytes] = []
        self._descriptors: list[int] = []  # -1: closed for now

    def open(self, path: bytes) -> int:
        """The descriptor of a folder, valid until the next call. Raises OSError (not a folder any more, gone...)."""
        if not path:
            self._shorten(0)
            return self._top
        names = path.split(b"/")
        shared = 0
        for mine, wanted in zip(self._names, names, strict=False):
            if mine != wanted:
                break
            shared += 1
        self._shorten(shared)
        reached = shared
        while reached and self._descriptors[reached - 1] < 0:
            reached -= 1
        descriptor = self._descriptors[reached - 1] if reached else self._top
        for depth in range(reached, len(names)):
            descriptor = os.open(names[depth], FOLDER_FLAGS, dir_fd=descriptor)
            if depth < len(self._names):
                self._descriptors[depth] = descriptor
            else:
                self._names.append(names[depth])
                self._descriptors.append(descriptor)
            far = depth - _KEPT_OPEN
            if far >= 0 and self._descriptors[far] >= 0:
                os.close(self._descriptors[far])
                self._descriptors[far] = -1
        return descriptor

    def close(self) -> None:
        """Close all but the top."""
        self._shorten(0)

    def _shorten(self, length: int) -> None:
        for descriptor in self._descriptors[length:]:
            if descriptor >= 0:
                os.close(descriptor)
        del self._names[length:], self._descriptors[length:]


@dataclass(slots=True)
class Scan:
    """The entries of one folder: sorted `names`, and `table` (int64) with the columns of a listing, LINKS, BLOCKS.

    `unseen` are names that are there but cannot be looked at, with the reason; `beyond` are names with times that
    64 bits of nanoseconds cannot hold (the table has the nearest).
    """

    names: list[bytes]
    table: NDArray[np.int64]
    unseen: list[tuple[bytes, str]]
    beyond: list[bytes]

    def keep(self, wanted: list[bool]) -> None:
        """Leave out the other rows."""
        self.names = [name for name, stays in zip(self.names, wanted, strict=True) if stays]
        self.table = self.table[np.array(wanted, np.bool_)]

    def include(self, name: bytes, s: os.stat_result) -> None:
        """Add a row in its place."""
        row = bisect(self.names, name)
        self.names.insert(row, name)
        self.table = np.insert(self.table, row, columns(s)[0], axis=0)


def scan(descriptor: int) -> Scan:
    """Look at every entry once, without following links. Entries that vanish meanwhile are left out."""
    with os.scandir(descriptor) as found:
        entries = list(found)
    names = os.fsencode("\0".join([entry.name for entry in entries])).split(b"\0") if entries else []
    table = array("q")
    extend = table.extend
    unseen: list[tuple[bytes, str]] = []
    beyond: list[bytes] = []
    missing: list[int] = []
    for at, entry in enumerate(entries):
        try:
            s = entry.stat(follow_symlinks=False)
            extend(
                (
                    s.st_mode,
                    s.st_uid,
                    s.st_gid,
                    s.st_size,
                    s.st_mtime_ns,
                    s.st_ctime_ns,
                    s.st_ino,
                    s.st_dev,
                    s.st_nlink,
                    s.st_blocks,
                )
            )
        except OverflowError:
            del table[(at - len(missing)) * _COLUMNS :]
            row, exact = columns(entry.stat(follow_symlinks=False))
            extend(row)
            if not exact:
                beyond.append(names[at])
        except FileNotFoundError:
            missing.append(at)
        except OSError as error:
            missing.append(at)
            unseen.append((names[at], error.strerror or "cannot be looked at"))
    for at in reversed(missing):
        del names[at]
    order = sorted(range(len(names)), key=names.__getitem__)
    stats = np.frombuffer(table, np.int64).reshape(len(names), _COLUMNS)
    return Scan([names[at] for at in order], stats[order], unseen, beyond)


def columns(s: os.stat_result) -> tuple[list[int], bool]:
    """One row of a scan's table; False when a time had to be brought into range."""
    row = [s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino, s.st_dev]
    row += [s.st_nlink, s.st_blocks]
    exact = True
    for column in (MTIME, CTIME):
        if not _LOWEST <= row[column] <= _HIGHEST:
            row[column] = min(max(row[column], _LOWEST), _HIGHEST)
            exact = False
    for column in (INODE, DEVICE):  # unsigned 64 bits; only compared, so the bits may be read as signed
        if row[column] > _HIGHEST:
            row[column] -= 1 << 64
    return row, exact
