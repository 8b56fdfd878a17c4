"""Tells without a backup that a cluster is as it was when it was read last.

Whatever a restore gives back comes by one of two ways. What the server governs changes only with a record in the
WAL: we read every record since, and know each of them (see `wal`). This holds as long as the server was not
stopped in between, because a stopped one can be changed without a record. The other files of the data directory
(settings, access rules, logs, keys...) are anybody's: their names, sizes and times must be the same.

What is remembered stands in the columns of the top folder's own row that do not travel: it is home's business.
"""

from __future__ import annotations

import stat
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from exclave.crypto.hashing import sha256
from exclave.errors import ExclaveError
from exclave.listing import AS_BEFORE, CTIME, DEVICE, INODE, MODE, NO_CONTENT, ROOT, SIZE, Listing
from exclave.registers.base import Prior
from exclave.registers.postgres.connection import Source
from exclave.registers.postgres.streaming import lsn_text, parse_lsn
from exclave.registers.postgres.wal import WalReading
from exclave.types import Instant

UNKNOWN = -1
OLDEST_SERVER = 140000  # before, a replication session cannot say whether the server is a standby
NEWEST_SERVER = 190000  # from here on nobody has looked at what its WAL means
TRUSTED_NS = 7 * 86_400_000_000_000  # then all is read again: damage on home's disk must be noticed
SETTLED_SECONDS = 2  # the server tells file times in whole seconds; younger ones may change unseen
_MOST_FILES = 20_000
_DEEPEST = 12
_MOST_WAL_BYTES = 64 << 20
_PATIENCE_SECONDS = 3.0  # an idle server writes its last WAL to disk within a fraction of a second

_WAL_DATA, _WAL_HEADER_BYTES = b"w"[0], 25

_CLOCK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_SERVER = """SELECT pg_is_in_recovery(), (SELECT system_identifier FROM pg_control_system())::text,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"""
# Folders that only the server writes, with a record for all that a backup has of them; and what no backup has.
_FILES = """WITH RECURSIVE walk AS (
    SELECT name AS path, 1 AS depth, found.* FROM pg_ls_dir('.', true, false) name, pg_stat_file(name, true) found
    WHERE name NOT IN ('base', 'global', 'pg_commit_ts', 'pg_dynshmem', 'pg_logical', 'pg_multixact', 'pg_notify',
        'pg_replslot', 'pg_serial', 'pg_snapshots', 'pg_stat_tmp', 'pg_subtrans', 'pg_tblspc', 'pg_twophase',
        'pg_wal', 'pg_xact', 'postmaster.pid', 'postmaster.opts')
    UNION ALL
    SELECT path || '/' || name, depth + 1, found.* FROM walk,
        pg_ls_dir(CASE WHEN isdir AND depth < %(deepest)s THEN path END, true, false) name,
        pg_stat_file(path || '/' || name, true) found
) SELECT path, depth, isdir, CASE WHEN isdir THEN 0 ELSE size END,
    CASE WHEN isdir THEN 0 ELSE extract(epoch FROM modification)::bigint END,
    CASE WHEN isdir THEN 0 ELSE extract(epoch FROM change)::bigint END
  FROM walk LIMIT %(most)s"""

_LIMITS = {"deepest": _DEEPEST, "most": _MOST_FILES + 1}

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the last reading left: `mark` of the server and its other files, the WAL position, when all was read."""

    mark: int
    lsn: int
    read_at: Instant

    @classmethod
    def of(cls, listing: Listing | None) -> Memory | None:
        """As the top folder's row has it; None when nothing is remembered."""
        if listing is None or ROOT not in listing.names:
            return None
        row = listing.stats[listing.names.index(ROOT)]
        mark, lsn, read_at = int(row[CTIME]), int(row[INODE]), int(row[DEVICE])
        return cls(mark, lsn, Instant(read_at)) if mark > 0 and lsn > 0 and read_at > 0 else None

    def write(self, listing: Listing) -> None:
        """Into the top folder's row."""
        listing.stats[listing.names.index(ROOT), [CTIME, INODE, DEVICE]] = (self.mark, self.lsn, self.read_at)


@dataclass(frozen=True, slots=True)
class Look:
    """A primary at one moment: its clock was read first, then all else, the WAL position last."""

    at: Instant
    mark: int  # UNKNOWN while a file is too young to be trusted
    lsn: int


@dataclass(frozen=True, slots=True)
class Wal:
    """How to read the WAL of a source."""

    source: Source
    timeline: int
    page_bytes: int
    segment_bytes: int

    def quiet(self, start: int, target: int) -> int | None:
        """The end of the last record read, at `target` or beyond, when none since `start` changes anything.

        Over a session of its own, so that whatever happens to it does not touch the backup's.
        """
        reading = WalReading(
            start, timeline=self.timeline, page_bytes=self.page_bytes, segment_bytes=self.segment_bytes
        )
        if reading.reached(target):  # already; beyond it, the server is an older one than it was
            return start if reading.beginning(start) == reading.beginning(target) else None
        left = _MOST_WAL_BYTES
        try:
            with closing(self.source.replication(silence_seconds=_PATIENCE_SECONDS)) as session:
                session.send(f"START_REPLICATION PHYSICAL {lsn_text(start)} TIMELINE {self.timeline}")
                session.result()
                for message in session.copied():
                    if message[0] != _WAL_DATA:
                        continue
                    left -= len(message)
                    if left < 0 or not reading.feed(message[_WAL_HEADER_BYTES:]):
                        return None
                    if reading.reached(target):
                        return reading.position
        except ExclaveError:  # its WAL is gone, or no session is free: then we do not know
            pass
        return None


def look(connection: Connection, system_identifier: str, timeline: int) -> Look | None:
    """None when this server is a standby or another one than named, or the role may not look at the files."""
    try:
        at = Instant(int(_row(connection, _CLOCK)[0]) * 1000)
        standby, system, started = _row(connection, _SERVER)
        if standby or system != system_identifier:
            return None
        found = files(connection)
        if found is None:
            return None
        lsn = parse_lsn(str(_row(connection, "SELECT pg_current_wal_insert_lsn()::text")[0]))
    except (psycopg.Error, ExclaveError):
        return None
    settled = at // 1_000_000_000 - SETTLED_SECONDS
    sure = all(max(row[-2:]) < settled for row in found)
    named = repr((system, timeline, started, found)).encode("utf-8", "surrogateescape")
    return Look(at, int.from_bytes(sha256(named)[:8], "big") >> 1 if sure else UNKNOWN, lsn)


def files(connection: Connection) -> list[tuple[Any, ...]] | None:
    """Path, depth, kind, size and times of each file that the WAL does not govern; None when not all can be seen."""
    try:
        found = sorted(connection.execute(_FILES.encode(), _LIMITS).fetchall())
    except psycopg.Error:
        return None
    return found if len(found) <= _MOST_FILES and all(row[1] < _DEEPEST for row in found) else None


def folders(prior: Prior) -> dict[bytes, int] | None:
    """Every folder of the previous snapshot and the bytes in its files; None when the listing of one is lost."""
    found, waiting = dict[bytes, int](), [b""]
    while waiting:
        path = waiting.pop()
        listing = prior.folder(path)
        if listing is None:
            return None
        found[path] = int(listing.stats[:, SIZE].sum())
        for name, mode in zip(listing.names, listing.stats[:, MODE].tolist(), strict=True):
            if stat.S_ISDIR(mode) and name != ROOT:
                waiting.append(path + b"/" + name if path else name)
    return found


def again(listing: Listing, memory: Memory) -> Listing:
    """The top folder as it was, with what is remembered now."""
    regular = (listing.stats[:, MODE] & 0o170000) == stat.S_IFREG
    content = np.where(regular & (listing.stats[:, SIZE] > 0), AS_BEFORE, NO_CONTENT).astype(np.int64)
    told = Listing(
        listing.path,
        list(listing.names),
        listing.stats.copy(),
        content,
        listing.page_bytes.astype(np.int32),
        dict(listing.extras),
    )
    memory.write(told)
    return told


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    return row if row is not None else ()
