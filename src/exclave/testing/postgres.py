"""Real PostgreSQL clusters for tests, the demonstration and the bench; also when we are root."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from exclave.runtimes import account as accounts
from exclave.runtimes.base import Service
from exclave.runtimes.postgres import PostgresRuntime, initdb


@dataclass(slots=True)
class Cluster:
    """A running cluster; `stop` and `start` at will."""

    major: int
    place: Path
    runtime: PostgresRuntime
    service: Service

    @property
    def conninfo(self) -> str:
        """Of the superuser `postgres`, on the private socket."""
        return self.service.address

    def conninfo_of(self, **changes: str) -> str:
        """The same with other parameters, such as `user` or `dbname`."""
        return make_conninfo(self.conninfo, **changes)

    def connect(self, dbname: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection in autocommit mode."""
        return psycopg.connect(self.conninfo_of(dbname=dbname), autocommit=True)

    def run(self, *statements: str, dbname: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute each statement; the rows of the last one."""
        with self.connect(dbname) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def stop(self) -> None:
        """Fast and clean."""
        self.runtime.stop(self.service)

    def start(self) -> None:
        """Again, after `stop`; the address changes."""
        self.service = self.runtime.start(self.service.name, self.place)


@contextmanager
def workspace() -> Generator[Path]:
    """A folder that the database account can come to, removed afterwards (pytest's own is closed to others)."""
    folder = Path(tempfile.mkdtemp(prefix="exclave-ws-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def cluster(
    major: int = 17,
    *,
    checksums: bool = True,
    settings: Mapping[str, str] | None = None,
    rules: tuple[str, ...] | None = None,
    folder: Path | None = None,
) -> Generator[Cluster]:
    """A new cluster, gone afterwards. `settings` are for the server, `rules` replace those of pg_hba.conf."""
    with workspace() as own:
        place = (folder or own) / "data"
        initdb(place, major, checksums=checksums)
        quick = {"fsync": "off", "max_connections": "40", "shared_buffers": "64MB", **(settings or {})}
        runtime = PostgresRuntime(own / "run", settings=quick, start_seconds=60)
        if rules is not None:
            runtime = PostgresRuntime(own / "run", settings=quick, start_seconds=60, rules=rules)
        made = Cluster(major, place, runtime, runtime.start(f"test-{major}", place))
        try:
            yield made
        finally:
            made.stop()


def lay_out(content: Mapping[bytes, bytes], folders: Iterable[bytes], place: Path) -> None:
    """Write what a capture told to disk, as a restore would: contents by path, and folders that may be empty."""
    for folder in sorted(folders):
        (place / os.fsdecode(folder)).mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, data in content.items():
        (place / os.fsdecode(path)).write_bytes(data)


def own(place: Path) -> None:
    """Give a tree to the account that servers run as (nothing to do for an ordinary user)."""
    accounts.hand_over(accounts.unprivileged(), place)
