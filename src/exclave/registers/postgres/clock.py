"""Finds the moment whose state a backup holds: the server's clock, sampled beside the WAL position.

A restore holds every commit whose record lies before the stop position. A sample reads the clock first and the
position after it. Whatever was acknowledged before that clock reading had its commit record in the WAL by then, so
before the position read next. When this position is not beyond the stop position, all of it is in the restore;
the last such sample is the best true answer. Nothing relies on how far the stream lags behind the server.

On a standby the clock is the commit time of the last transaction replayed. It is taken before the commit's record
is written, so whatever the primary acknowledged before it has an earlier record, and was replayed too. Until a
transaction was replayed, the time of the last checkpoint serves, which begins before its redo position.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Self

import psycopg

from exclave.registers.postgres.streaming import parse_lsn
from exclave.types import Instant

_PERIOD_SECONDS = 0.25
_SAMPLES = 4096  # those after the stop are useless; the stream lags by far less than these 17 minutes
_PRIMARY = (
    "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint",
    "SELECT pg_current_wal_insert_lsn()::text",
)
_STANDBY = (
    """SELECT (extract(epoch FROM coalesce(pg_last_xact_replay_timestamp(),
       (SELECT checkpoint_time FROM pg_control_checkpoint()))) * 1000000)::bigint""",
    """SELECT coalesce(pg_last_wal_replay_lsn(), (SELECT redo_lsn FROM pg_control_checkpoint()))::text""",
)

Connection = psycopg.Connection[tuple[Any, ...]]


class SourceClock:
    """Samples in a thread of its own over `connection` (autocommit), which nobody else may use. A context."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._queries = _STANDBY if _in_recovery(connection) else _PRIMARY
        self._first = self._sample()
        self._later: deque[tuple[Instant, int]] = deque(maxlen=_SAMPLES)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="postgres-clock", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def consistent_at(self, stop_lsn: int) -> Instant:
        """Everything acknowledged before this instant lies before `stop_lsn`."""
        return max(
            (instant for instant, lsn in (self._first, *self._later) if lsn <= stop_lsn),
            default=self._first[0],
        )

    def _run(self) -> None:
        while not self._stopping.wait(_PERIOD_SECONDS):
            try:
                self._later.append(self._sample())
            except psycopg.Error:
                return  # the answer only gets older, never wrong

    def _sample(self) -> tuple[Instant, int]:
        clock, position = self._queries
        microseconds = int(_one(self._connection, clock))
        return Instant(microseconds * 1000), parse_lsn(str(_one(self._connection, position)))


def _in_recovery(connection: Connection) -> bool:
    return bool(_one(connection, "SELECT pg_is_in_recovery()"))


def _one(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None
