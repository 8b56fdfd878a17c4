"""A PostgreSQL 15 of the machine's own for the pgbench set: initialised, started, worked on, stopped."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

SETTINGS = """
listen_addresses = ''
shared_buffers = 128MB
max_wal_size = 128MB
min_wal_size = 80MB
autovacuum = off
wal_level = replica
max_wal_senders = 8
full_page_writes = on
"""


# A server that runs was not started in this very second: what is that young is never taken for unchanged.
REST_SECONDS = 3


def programs() -> Path:
    """The folder of PostgreSQL 15's programs. Raises SystemExit with what to install."""
    found = Path("/usr/lib/postgresql/15/bin")
    if not (found / "pgbench").exists():
        raise SystemExit(
            "PostgreSQL 15 with pgbench is missing.\n  apt-get install postgresql-15 postgresql-contrib"
        )
    return found


def _as_owner() -> list[str]:
    """PostgreSQL refuses root; as root we use the account that Debian made for it."""
    if os.geteuid() != 0:
        return []
    account = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _call(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [*_as_owner(), *map(str, command)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(
            f"{command[0]} failed: {(done.stderr or done.stdout).decode(errors='replace')[-1500:]}"
        )


def initialise(programs: Path, folder: Path, *, pgbench_scale: int) -> None:
    """Make a cluster in `folder` (which must not exist), fill it, stop it."""
    folder.mkdir(mode=0o700)
    if os.geteuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        for above in folder.parents:
            if not above.stat().st_mode & 0o001:
                raise SystemExit(f"PostgreSQL's account cannot enter {above}; choose another --work")
    _call(
        [
            programs / "initdb",
            "-D",
            folder,
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-locale",
            "-E",
            "UTF8",
            "-N",
        ]
    )
    with (folder / "postgresql.auto.conf").open("a") as file:
        file.write(SETTINGS)
    with Server(programs, folder) as server:
        server.pgbench("-i", "-q", "-s", str(pgbench_scale))
        server.sql("VACUUM FREEZE")
        server.sql("CHECKPOINT")


@dataclass
class Server:
    """A running cluster, reached by a socket in `/tmp`; stopped with a checkpoint at the end of the block."""

    programs: Path
    folder: Path
    port: int = 54329
    sockets: Path = field(default_factory=lambda: Path("/tmp"))

    def __enter__(self) -> Self:
        options = f"-k {self.sockets} -p {self.port}"
        self._control("start", "-l", f"{self.folder}.log", "-o", options)
        time.sleep(REST_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._control("stop", "-m", "fast")

    def _control(self, verb: str, *options: str) -> None:
        log = Path(f"{self.folder}.log")
        log.touch(mode=0o666)
        log.chmod(0o666)
        _call([self.programs / "pg_ctl", "-D", self.folder, "-w", "-s", *options, verb])

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    @property
    def conninfo(self) -> str:
        """For a client on this machine."""
        return f"host={self.sockets} port={self.port} user=postgres dbname=postgres"

    def pgbench(self, *options: str) -> None:
        _call(
            [
                self.programs / "pgbench",
                "-h",
                self.sockets,
                "-p",
                str(self.port),
                "-U",
                "postgres",
                *options,
                "postgres",
            ]
        )

    def sql(self, statement: str) -> None:
        port = str(self.port)
        _call(
            [
                self.programs / "psql",
                "-h",
                self.sockets,
                "-p",
                port,
                "-U",
                "postgres",
                "-qc",
                statement,
                "postgres",
            ]
        )

    def work(self, transactions: int) -> None:
        """The change: so many of pgbench's transactions by four clients, always the same ones; then a checkpoint."""
        self.pgbench("-n", "-c", "4", "-j", "2", "-t", str(transactions // 4), "--random-seed=7")
        self.sql("CHECKPOINT")
