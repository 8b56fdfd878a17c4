"""A PostgreSQL cluster as a register."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from exclave.errors import ExclaveError
from exclave.registers.base import Capture, Finding, Prior, Told
from exclave.registers.postgres import doctor
from exclave.registers.postgres.capture import PostgresCapture
from exclave.registers.postgres.connection import Source
from exclave.registers.slabs import SlabPool


@dataclass(frozen=True, slots=True)
class PostgresRegister:
    """Versions 13 to 18, primary or standby, over the replication protocol.

    `conninfo` is as libpq reads it; the password belongs in `password_file` (its first line; mode 0600). The role
    needs REPLICATION; with CONNECT to the databases and pg_read_all_settings more of the environment is captured,
    and the snapshot's instant is sharper. Nothing stays at the source, however the capture ends.
    """

    conninfo: str = field(repr=False)
    password_file: Path | None = field(default=None, kw_only=True)

    @property
    def source(self) -> Source:
        """Where it answers."""
        return Source(self.conninfo, self.password_file)

    @property
    def kind(self) -> str:
        """`postgres`."""
        return "postgres"

    @contextmanager
    def capture(self, prior: Prior, slabs: SlabPool, told: Told) -> Generator[Capture]:
        """A base backup; or nothing, when the cluster is known to be as it was (see `stillness`)."""
        with ExitStack() as context:
            yield PostgresCapture(self.source, prior, slabs, told, context)

    def size_hint(self) -> int:
        """The databases' sizes together; 0 when they cannot be asked for."""
        try:
            with self.source.sql() as connection:
                row = connection.execute(
                    "SELECT sum(pg_database_size(oid))::bigint FROM pg_database"
                ).fetchone()
        except (ExclaveError, psycopg.Error):
            return 0
        return int(row[0]) if row and row[0] else 0

    def doctor(self) -> list[Finding]:
        """Reachable, permitted, settings, clock. Raises nothing for what it looks for."""
        return doctor.examine(self.source)
