"""One online base backup, told as a data directory: slabs while it arrives, listings at its end.

Or, when the cluster is known to be as it was at the last one: only that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from exclave.errors import ExclaveError, Misconfigured
from exclave.registers.base import Event, Prior, SameFolder, Told
from exclave.registers.postgres import environment as surroundings
from exclave.registers.postgres import stillness
from exclave.registers.postgres.backup import Backup
from exclave.registers.postgres.clock import SourceClock
from exclave.registers.postgres.connection import Session, Source
from exclave.registers.postgres.streaming import Stopped, lsn_text
from exclave.registers.slabs import SlabPool
from exclave.types import Gap, Instant


class PostgresCapture:
    """A Capture. The session, its temporary slot and the clock's connection end with the context that made it."""

    def __init__(self, source: Source, prior: Prior, slabs: SlabPool, told: Told, context: ExitStack) -> None:
        self._prior = prior
        self._told = told
        self._context = context
        self._gaps: list[Gap] = []
        self._stopped: Stopped | None = None
        self._began = Instant(time.time_ns())
        self._session = source.replication()
        context.callback(self._session.close)
        self._unchanged_at: Instant | None = None
        self._connection = self._connect(source)
        self._clock = self._read_clock(source)
        self._environment = surroundings.read(source, self._session)
        self._wal = stillness.Wal(
            source,
            self._environment["timeline"],
            surroundings.size_bytes(self._session.show("wal_block_size")),
            self._environment["wal_segment_bytes"],
        )
        self._backup = Backup(self._session, slabs, block_bytes=self._environment["block_bytes"])
        context.callback(self._backup.abandon)

    def changes(self) -> Iterator[Event]:
        """The whole data directory, or that all of it is the same.

        Raises Unreachable, Tampered (`source-damaged`), Misconfigured.
        """
        look = self._look()
        if look is not None and (same := self._same(look)):
            yield from same
            return
        if self._clock is not None:
            self._context.enter_context(self._clock)
        reserve_wal(self._session)
        yield from self._backup.slabs(self._told)
        self._stopped = self._backup.stopped
        self._environment["tablespaces"] = [
            {"oid": space.oid, "location": space.location, "size_bytes": space.size_bytes}
            for space in self._backup.tablespaces
        ]
        memory = self._memory(look)
        for listing in self._backup.listings():
            if memory is not None and not listing.path:
                memory.write(listing)
            yield listing

    def consistent_at(self) -> Instant:
        """By the server's clock (see `clock`); by ours at the beginning when only replication is allowed to us."""
        stop = self._end().lsn
        if self._unchanged_at is not None:
            return self._unchanged_at
        return self._clock.consistent_at(stop) if self._clock else self._began

    def position(self) -> str:
        """Where the WAL ends, and its timeline: `16/B374D848@1`."""
        stop = self._end()
        return f"{lsn_text(stop.lsn)}@{stop.timeline}"

    def environment(self) -> dict[str, Any]:
        """Versions, settings, databases, roles... (see `environment`). No secrets, no password hashes."""
        return self._environment

    def gaps(self) -> list[Gap]:
        """Nothing of a cluster's files is ever left out; unlogged tables' rows are named in the environment."""
        return list(self._gaps)

    def settle(self) -> None:
        """Nothing is kept at the source for us: the slot is temporary, and the WAL travels in the backup."""

    def _end(self) -> Stopped:
        if self._stopped is None:
            raise ValueError("a capture is asked for its end before its changes were read")
        return self._stopped

    def _look(self) -> stillness.Look | None:
        """Before the clock's thread begins: it then has the connection for itself."""
        known = stillness.OLDEST_SERVER <= self._session.server_version < stillness.NEWEST_SERVER
        if self._connection is None or not known or self._session.show("in_hot_standby") != "off":
            return None
        system, timeline = self._environment["system_identifier"], self._environment["timeline"]
        return stillness.look(self._connection, system, timeline)

    def _same(self, look: stillness.Look) -> list[Event]:
        """What to tell when nothing changed since the previous snapshot; nothing when that is not certain."""
        top = self._prior.folder(b"")
        before = stillness.Memory.of(top)
        if top is None or before is None or look.mark != before.mark:
            return []
        if not 0 <= look.at - before.read_at < stillness.TRUSTED_NS:
            return []
        sizes = stillness.folders(self._prior)
        spaces = self._spaces(sizes) if sizes is not None else None
        if sizes is None or spaces is None or (lsn := self._wal.quiet(before.lsn, look.lsn)) is None:
            return []
        self._environment["tablespaces"] = spaces
        self._stopped = Stopped(lsn, self._wal.timeline)
        self._unchanged_at = look.at
        self._told(0, 0)
        first: Event = SameFolder(b"")
        if lsn != before.lsn:  # so that the server need not keep the WAL that we have read
            first = stillness.again(top, stillness.Memory(before.mark, lsn, before.read_at))
        return [first, *(SameFolder(path) for path in sizes if path)]

    def _spaces(self, sizes: dict[bytes, int]) -> list[dict[str, Any]] | None:
        """The tablespaces as a backup would tell them, with the sizes that they had then."""
        if self._connection is None:
            return None
        try:
            rows = self._connection.execute(_SPACES).fetchall()
        except psycopg.Error:
            return None
        found: list[dict[str, Any]] = []
        for oid, location in rows:
            top = b"pg_tblspc/%d" % oid
            held = sum(size for path, size in sizes.items() if path == top or path.startswith(top + b"/"))
            found.append({"oid": oid, "location": location, "size_bytes": held})
        return found

    def _memory(self, look: stillness.Look | None) -> stillness.Memory | None:
        """What to remember of this backup: None unless it has all of the WAL segment that it ended in.

        The server closes that segment when the backup stops. What was written to it after the stop must not matter;
        the next segment's beginning is where the next look begins, because the server soon drops older ones.
        """
        if look is None or look.mark == stillness.UNKNOWN:
            return None
        stop = self._end()
        segment = self._wal.segment_bytes
        lsn = self._wal.quiet(stop.lsn, -(-stop.lsn // segment) * segment)
        if lsn is None or stop.timeline != self._wal.timeline:
            return None
        return stillness.Memory(look.mark, lsn, look.at)

    def _connect(self, source: Source) -> stillness.Connection | None:
        try:
            connection = source.sql()
        except Misconfigured as error:
            if _is_standby(self._session):
                raise Misconfigured(
                    "source-clock-unknown",
                    "It cannot be said how current a backup of this standby is",
                    why=f"a standby may lag behind, and its role may not connect to a database: {error.why}",
                    hint="allow the role to connect to the database postgres",
                ) from error
            return None
        self._context.callback(connection.close)
        return connection

    def _read_clock(self, source: Source) -> SourceClock | None:
        if self._connection is None:
            return None
        try:
            return SourceClock(self._connection)
        except psycopg.Error as error:
            raise source.explained(str(error), error.sqlstate or "") from None


_SPACES = b"""SELECT oid::bigint, pg_tablespace_location(oid) FROM pg_tablespace
    WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid"""


def reserve_wal(session: Session) -> None:
    """Make the server keep WAL from now on, by a slot that vanishes with the session.

    Without a free slot the backup goes on: a server that dropped WAL which the backup needs says so at its end.
    """
    try:
        name = f"exclave_base_backup_{session.process}"
        session.rows(f"CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL")
    except ExclaveError as error:
        if "max_replication_slots" not in error.why:
            raise


def _is_standby(session: Session) -> bool:
    try:
        return session.show("in_hot_standby") == "on"
    except ExclaveError:  # version 13 does not know the setting
        return False
