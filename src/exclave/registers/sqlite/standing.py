"""How the files of a database stand, by their attributes: tells without opening them whether anything was written."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exclave.crypto.hashing import sha256
from exclave.listing import (
    CTIME,
    DEVICE,
    GID,
    INODE,
    MODE,
    MTIME,
    NO_CONTENT,
    ROOT,
    SIZE,
    STATS,
    UID,
    Listing,
)

SETTLED_NS = 2_000_000_000  # a file younger than this may be written again within the same tick of its clock
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Standing:
    """Attributes of the database, its write-ahead log and its folder at one moment."""

    main: os.stat_result
    folder: os.stat_result
    log: os.stat_result | None  # None also when it is empty: readers make and leave empty ones
    settled: bool

    @property
    def modified_ns(self) -> int:
        """When something was last written."""
        return max(self.main.st_mtime_ns, self.log.st_mtime_ns if self.log else 0)

    @property
    def fingerprint(self) -> int:
        """A number that differs, but for a chance of 2**-62, when any attribute that a write changes does."""
        values: list[int] = []
        for about in (self.main, self.log):
            if about is not None:
                values += [about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns]
        # Not the log's change time: as root, SQLite gives the log to the database's owner whenever it opens it.
        values.append(self.main.st_ctime_ns)
        return int.from_bytes(sha256(repr(values).encode())[:8], "big") >> 1

    def listing(self, name: bytes, size_bytes: int, page_bytes: int, content: int) -> Listing:
        """The register as a tree of one file. The change time carries the fingerprint, or UNKNOWN while unsettled.

        The folder's own times are the file's: its real ones change with every journal and with other files.
        """
        mark = self.fingerprint if self.settled else UNKNOWN
        rows = {ROOT: self._row(self.folder, 0, mark), name: self._row(self.main, size_bytes, mark)}
        names = sorted(rows)
        stats = np.array([rows[one] for one in names], dtype=np.int64)
        of_file = np.array([one == name for one in names])
        return Listing(
            b"",
            names,
            stats,
            np.where(of_file, content, NO_CONTENT).astype(np.int64),
            np.where(of_file, page_bytes, 0).astype(np.int32),
        )

    def same_as(self, before: Listing, name: bytes) -> bool:
        """Whether nothing was written since `before` was told."""
        if not self.settled or before.names != sorted([ROOT, name]):
            return False
        file_row = before.names.index(name)
        mine = self.listing(name, int(before.stats[file_row, SIZE]), 0, NO_CONTENT)
        return bool(np.array_equal(mine.stats, before.stats))

    def _row(self, about: os.stat_result, size_bytes: int, mark: int) -> NDArray[np.int64]:
        row = np.zeros(STATS, dtype=np.int64)
        row[MODE] = about.st_mode & ~stat.S_ISVTX if stat.S_ISDIR(about.st_mode) else about.st_mode
        row[UID], row[GID], row[SIZE] = about.st_uid, about.st_gid, size_bytes
        row[MTIME], row[CTIME] = self.modified_ns, mark
        row[INODE], row[DEVICE] = about.st_ino, about.st_dev
        return row


def look(path: Path) -> Standing:
    """The standing of the database at `path`, links followed. Raises OSError."""
    path = path.resolve(strict=True)
    main = path.stat()
    try:
        log = path.with_name(path.name + "-wal").stat()
    except FileNotFoundError:
        log = None
    if log is not None and not log.st_size:
        log = None
    newest = max(main.st_mtime_ns, main.st_ctime_ns, log.st_mtime_ns if log is not None else 0)
    return Standing(main, path.parent.stat(), log, time.time_ns() - newest > SETTLED_NS)


def at_rest(path: Path) -> bool:
    """Readable, with no journal and no write-ahead log beside it: the file is complete by itself."""
    try:
        path = path.resolve(strict=True)
        # Not by opening it: closing it again would drop the locks that other connections of this process hold.
        if not os.access(path, os.R_OK, effective_ids=True):
            return False
        for suffix in ("-journal", "-wal"):
            beside = path.with_name(path.name + suffix)
            if beside.exists() and beside.stat().st_size:
                return False
    except OSError:
        return False
    return True
