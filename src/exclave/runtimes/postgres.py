"""Starting a PostgreSQL data directory as a child process, answering only on a private socket unless asked."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exclave.errors import Misconfigured
from exclave.registers.base import Finding
from exclave.registers.postgres import binaries
from exclave.registers.postgres.checks import after_start
from exclave.runtimes import account as accounts
from exclave.runtimes import base, process
from exclave.runtimes.account import Account
from exclave.runtimes.base import Service

_SOCKET_PORT = 5432  # only part of the socket's name; nothing listens on it unless a port is asked for
_TRUST = ("local all all trust", "local replication all trust")
_SUPERUSER = re.compile(r"^exclave\.superuser = '((?:[^']|'')*)'$", re.MULTILINE)
_STOPPING = ((signal.SIGINT, 120.0), (signal.SIGQUIT, 20.0), (signal.SIGKILL, 10.0))
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class PostgresRuntime:
    """Runs clusters of any version found here; never as root, never with anybody's environment.

    `folder` keeps notes and logs. Access is by a Unix socket in a new folder of mode 0700, where everybody who can
    come is trusted. With `port` (0: any free one) it also listens on 127.0.0.1, for roles with a SCRAM password.
    """

    folder: Path
    programs: Path | None = None
    port: int | None = None
    start_seconds: float = 3600.0  # recovery of a large cluster takes its time
    check_seconds: float = 20.0
    rules: tuple[str, ...] = _TRUST  # of pg_hba.conf, for this run only
    settings: Mapping[str, str] = field(default_factory=dict[str, str])

    def start(self, name: str, place: Path) -> Service:
        """Serving and writable (recovery ended, own timeline) when this returns.

        When we are root, `place` and its tablespaces change owner. Raises Misconfigured, Busy.
        """
        log = base.log_of(self.folder, name)
        process.refuse_twice(self.folder, name)
        account = accounts.unprivileged()
        for tree in (place, tablespaces_of(place)):
            if tree.is_dir():
                accounts.require_reach(account, tree)
                accounts.hand_over(account, tree)
        programs = accounts.within_reach(account, binaries.find(major_of(place), configured=self.programs))
        self.folder.mkdir(parents=True, exist_ok=True)
        private = accounts.private_folder(account)
        try:
            service = self._launch(name, place, programs, private, log, account)
        except BaseException:
            shutil.rmtree(private, ignore_errors=True)
            raise
        base.remember(self.folder, service)
        return service

    def stop(self, service: Service) -> None:
        """A fast, clean shutdown; after two minutes an immediate one. Raises Unreachable, Misconfigured."""
        process.end(service, *_STOPPING)
        if service.private is not None:
            shutil.rmtree(service.private, ignore_errors=True)
        base.forget(self.folder, service.name)

    def healthy(self, service: Service) -> bool:
        """Whether it answers a query and is out of recovery."""
        return process.alive(service) and _writable(service.address)

    def check(self, service: Service, environment: dict[str, Any]) -> list[Finding]:
        """It answers, on its own timeline; collations and indexes, as far as `check_seconds` reach."""
        return after_start(service.address, environment, seconds=self.check_seconds)

    def _launch(
        self, name: str, place: Path, programs: Path, private: Path, log: Path, account: Account | None
    ) -> Service:
        port = self.port or (_free_port() if self.port == 0 else _SOCKET_PORT)
        rules = list(self.rules)
        if self.port is not None:
            rules.append("host all all 127.0.0.1/32 scram-sha-256")
        access = private / "pg_hba.conf"
        access.write_text("\n".join(rules) + "\n", encoding="utf-8")
        accounts.hand_over(account, private)
        options = {
            "hba_file": str(access),
            "unix_socket_directories": str(private),
            "unix_socket_permissions": "0700",
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "port": str(port),
            "logging_collector": "off",
            "log_destination": "stderr",
            **self.settings,
        }
        command: list[str | Path] = [programs / "postgres", "-D", place]
        for option, value in options.items():
            command += ["-c", f"{option}={value}"]
        pid = process.spawn(command, log=log, account=account, environment=_ENVIRONMENT)
        address = make_conninfo(host=str(private), port=port, user=superuser_of(place), dbname="postgres")
        service = Service(name, "postgres", address, pid, process.birth(pid), place, log, private)
        try:
            process.wait_until(lambda: self._ready(address), service, seconds=self.start_seconds)
        except BaseException:
            process.end(service, *_STOPPING)
            raise
        return service

    def _ready(self, address: str) -> bool:
        return _writable(address)


def initdb(place: Path, major: int, *, checksums: bool = True, programs: Path | None = None) -> None:
    """Make a new, empty cluster in `place` (superuser `postgres`, UTF8, C locale). For demonstrations and tests."""
    account = accounts.unprivileged()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    accounts.require_reach(account, place)
    accounts.hand_over(account, place)
    found = accounts.within_reach(account, binaries.find(major, configured=programs))
    options = ["--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8", "--no-sync"]
    if checksums:
        options.append("--data-checksums")
    elif major >= 18:
        options.append("--no-data-checksums")
    done = subprocess.run(
        [found / "initdb", "-D", place, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env=_ENVIRONMENT,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode != 0:
        raise Misconfigured(
            "initdb-failed", f"No cluster can be made in {place}", why=done.stderr.strip()[-500:]
        )


def major_of(place: Path) -> int:
    """The major version that wrote the data directory `place`. Raises Misconfigured if it is none."""
    try:
        return int((place / "PG_VERSION").read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise Misconfigured(
            "not-a-cluster",
            f"{place} is not a PostgreSQL data directory",
            why="it has no readable PG_VERSION",
        ) from error


def superuser_of(place: Path) -> str:
    """The superuser that a rebuilt cluster was found to have; `postgres` when nobody wrote it down."""
    try:
        match = _SUPERUSER.search((place / "postgresql.conf").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return "postgres"
    return match.group(1).replace("''", "'") if match else "postgres"


def tablespaces_of(place: Path) -> Path:
    """The folder beside a rebuilt data directory that has its tablespaces."""
    return place.with_name(f"{place.name}-tablespaces")


def _writable(address: str) -> bool:
    try:
        with psycopg.connect(address, connect_timeout=5, autocommit=True) as connection:
            row = connection.execute("SELECT NOT pg_is_in_recovery()").fetchone()
    except psycopg.OperationalError as error:
        if error.sqlstate in {"28000", "28P01"} or 'role "' in str(error):
            user = conninfo_to_dict(address).get("user")
            raise Misconfigured(
                "service-start-failed", f"The server is up but does not let {user} in", why=str(error).strip()
            ) from error
        return False
    return bool(row and row[0])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
