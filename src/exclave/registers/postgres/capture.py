"""One online base backup, told as a data directory: slabs while it arrives, listings at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg

from exclave.errors import ExclaveError, Misconfigured
from exclave.registers.base import Event, Told
from exclave.registers.postgres import environment as surroundings
from exclave.registers.postgres.backup import Backup
from exclave.registers.postgres.clock import SourceClock
from exclave.registers.postgres.connection import Session, Source
from exclave.registers.postgres.streaming import Stopped, lsn_text
from exclave.registers.slabs import SlabPool
from exclave.types import Gap, Instant


class PostgresCapture:
    """A Capture. The session, its temporary slot and the clock's connection end with the context that made it."""

    def __init__(self, source: Source, slabs: SlabPool, told: Told, context: ExitStack) -> None:
        self._told = told
        self._gaps: list[Gap] = []
        self._stopped: Stopped | None = None
        self._began = Instant(time.time_ns())
        self._session = source.replication()
        context.callback(self._session.close)
        self._clock = self._start_clock(source, context)
        self._environment = surroundings.read(source, self._session)
        self._backup = Backup(self._session, slabs, block_bytes=self._environment["block_bytes"])
        context.callback(self._backup.abandon)

    def changes(self) -> Iterator[Event]:
        """The whole data directory. Raises Unreachable, Tampered (`source-damaged`), Misconfigured."""
        reserve_wal(self._session)
        yield from self._backup.events(self._told)
        self._stopped = self._backup.stopped
        self._environment["tablespaces"] = [
            {"oid": space.oid, "location": space.location, "size_bytes": space.size_bytes}
            for space in self._backup.tablespaces
        ]

    def consistent_at(self) -> Instant:
        """By the server's clock (see `clock`); by ours at the beginning when only replication is allowed to us."""
        stop = self._end().lsn
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

    def _start_clock(self, source: Source, context: ExitStack) -> SourceClock | None:
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
        context.callback(connection.close)
        try:
            return context.enter_context(SourceClock(connection))
        except psycopg.Error as error:
            raise source.explained(str(error), error.sqlstate or "") from None


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
