"""Connections to a PostgreSQL source: plain and replication, with its errors turned into ours."""

from __future__ import annotations

import select
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from exclave.errors import ExclaveError, Misconfigured, Tampered, Unreachable

_DEFAULTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",  # a peer that vanished is noticed after about a minute
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "application_name": "exclave",
}
_SILENCE_SECONDS = 3600.0  # a checkpoint before the first byte may take long; TCP keepalives find dead peers
_NOTICES = 40


@dataclass(frozen=True, slots=True)
class Source:
    """Where the cluster answers and how we log in. Neither the string nor the password shows in a repr."""

    conninfo: str = field(repr=False)
    password_file: Path | None = None

    def sql(self, dbname: str | None = None) -> psycopg.Connection[tuple[Any, ...]]:
        """An ordinary connection in autocommit mode, to `dbname` or the one configured. Raises our errors."""
        named = self._parameters()
        try:
            return psycopg.connect(
                self._complete(named, dbname=dbname or named.get("dbname") or "postgres"), autocommit=True
            )
        except psycopg.Error as error:
            raise self.explained(str(error)) from None  # the cause's text may hold the connection string

    def replication(self, *, silence_seconds: float = _SILENCE_SECONDS) -> Session:
        """A physical replication session; it gives up when the server says nothing for so long."""
        conninfo = self._complete(self._parameters(), replication="true")
        raw = pq.PGconn.connect(conninfo.encode())
        if raw.status != pq.ConnStatus.OK:
            text = raw.get_error_message()
            raw.finish()
            raise self.explained(text)
        return Session(raw, self, silence_seconds)

    def explained(self, text: str, sqlstate: str = "") -> ExclaveError:
        """Our error for what the server or libpq said."""
        return _explain(self.redacted(text.strip()), sqlstate)

    def redacted(self, text: str) -> str:
        """`text` without the password, should it be in there."""
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return text

    def _parameters(self) -> dict[str, Any]:
        try:
            return dict(conninfo_to_dict(self.conninfo))
        except psycopg.Error:
            raise Misconfigured(  # without libpq's words: they quote the string, and so maybe the password
                "conninfo-malformed",
                "The connection string of the register cannot be read",
                why="it is neither key=value pairs nor a postgresql:// URL",
                hint="exclave explain conninfo-malformed",
            ) from None

    def _complete(self, named: dict[str, Any], **more: str | None) -> str:
        extra = {key: value for key, value in _DEFAULTS.items() if key not in named}
        if self.password_file is not None:
            extra["password"] = read_password(self.password_file)
        extra.update({key: value for key, value in more.items() if value is not None})
        return make_conninfo("", **{**named, **extra})

    def _secrets(self) -> list[str]:
        try:
            found = [str(conninfo_to_dict(self.conninfo).get("password") or "")]
        except psycopg.Error:
            found = []
        if self.password_file is not None:
            with suppress(Misconfigured):
                found.append(read_password(self.password_file))
        return [secret for secret in found if secret]


def read_password(path: Path) -> str:
    """The first line of `path`. Raises Misconfigured when others may read it, or it is empty."""
    try:
        with path.open(encoding="utf-8") as stream:
            mode = stat.S_IMODE(path.stat().st_mode)
            line = stream.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror or "" if isinstance(error, OSError) else "it is not text"
        raise Misconfigured(
            "password-file-unreadable", f"{path} cannot be read", why=why, hint=f"ls -l {path}"
        ) from error
    if mode & 0o077:
        raise Misconfigured(
            "password-file-open",
            f"Others can read {path}",
            why=f"its mode is {mode:04o}",
            hint=f"chmod 600 {path}",
        )
    if not line:
        raise Misconfigured(
            "password-file-unreadable", f"{path} is empty", hint="write the password in its first line"
        )
    return line


class Session:
    """A replication session; every wait can be interrupted, and is bounded. `notices` is what the server warned of."""

    def __init__(self, raw: pq.abc.PGconn, source: Source, silence_seconds: float = _SILENCE_SECONDS) -> None:
        self._raw = raw
        self._silence_seconds = silence_seconds
        self._source = source
        self.notices: list[str] = []
        raw.notice_handler = self._noticed
        self._poller = select.poll()  # one for all waits: there are tens of thousands in a backup
        self._poller.register(raw.socket, select.POLLIN)
        self._poll_ms = min(1.0, silence_seconds) * 1000

    @property
    def server_version(self) -> int:
        """As 170010."""
        return self._raw.server_version

    @property
    def process(self) -> int:
        """The server process that serves this session."""
        return self._raw.backend_pid

    @property
    def block_bytes(self) -> int:
        """The server's page size."""
        return int(self.show("block_size"))

    def show(self, setting: str) -> str:
        """One setting's value; replication sessions know SHOW. Raises Misconfigured when the role may not see it."""
        return self.rows(f"SHOW {setting}")[0][0] or ""

    def rows(self, command: str) -> list[list[str | None]]:
        """The rows of a command that has one result."""
        self.send(command)
        found: list[list[str | None]] = []
        while (result := self.result()) is not None:
            found += values(result)
        return found

    def send(self, command: str) -> None:
        """Begin a command; `result` until None."""
        try:
            self._raw.send_query(command.encode())
        except psycopg.Error as error:
            raise self._source.explained(str(error)) from None

    def result(self) -> pq.abc.PGresult | None:
        """The next result of the command, None after the last. Raises our error for one that failed."""
        try:
            while self._raw.is_busy():
                self._wait()
            result = self._raw.get_result()
        except psycopg.Error as error:
            raise self._source.explained(str(error)) from None
        if result is not None and result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE}:
            failed = self._failed(result)
            self._finish_command()
            raise failed
        return result

    def copied(self) -> Iterator[memoryview]:
        """The messages of the COPY that the last result began, until it ends; each valid until the next."""
        raw = self._raw
        try:
            while True:
                size, data = raw.get_copy_data(1)
                if size > 0:
                    yield memoryview(data)
                elif size == 0:
                    self._wait()
                else:
                    return
        except psycopg.Error as error:
            raise self._source.explained(str(error)) from None

    def close(self) -> None:
        """End the session; the server drops what was temporary. May be repeated."""
        self._raw.finish()

    def _failed(self, result: pq.abc.PGresult) -> ExclaveError:
        sqlstate = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")
        error = self._source.explained(result.get_error_message(), sqlstate)
        if isinstance(error, Tampered) and self.notices:
            error.why = "; ".join(self.notices)
        return error

    def _finish_command(self) -> None:
        """After an error nothing else comes but the end, if the session lives: it can then take another command."""
        try:
            while self._raw.get_result() is not None:
                pass
        except psycopg.Error as error:
            self.notices.append(str(error))

    def _wait(self) -> None:
        deadline = time.monotonic() + self._silence_seconds
        while not self._poller.poll(self._poll_ms):
            if time.monotonic() > deadline:
                why = f"not a byte for {self._silence_seconds:.0f} seconds"
                raise Unreachable("source-silent", "The server went silent", why=why)
        self._raw.consume_input()

    def _noticed(self, result: pq.abc.PGresult) -> None:
        severity = result.error_field(pq.DiagnosticField.SEVERITY_NONLOCALIZED) or b""
        if severity == b"WARNING" and len(self.notices) < _NOTICES:
            text = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
            self.notices.append(self._source.redacted(text))


def values(result: pq.abc.PGresult) -> list[list[str | None]]:
    """The rows of a result, as text."""
    return [
        [
            None if (cell := result.get_value(row, column)) is None else cell.decode("utf-8", "replace")
            for column in range(result.nfields)
        ]
        for row in range(result.ntuples)
    ]


# In order: words of the message (lower case) or its SQLSTATE, the kind, its id, what to do next.
_REASONS: tuple[tuple[tuple[str, ...], type[ExclaveError], str, str], ...] = (
    (
        ("XX001", "checksum verification failure"),
        Tampered,
        "source-damaged",
        "exclave explain source-damaged",
    ),
    (
        ("28000", "28P01", "authentication failed", "no password supplied", "no pg_hba.conf entry"),
        Misconfigured,
        "source-login-refused",
        "check user, password_file and the server's pg_hba.conf",
    ),
    (
        ("42501", "replication role", "permission denied to start wal sender"),
        Misconfigured,
        "source-permission",
        "ALTER ROLE ... REPLICATION",
    ),
    (('role "', 'database "'), Misconfigured, "source-login-refused", "check user and dbname"),
    (("max_wal_senders",), Unreachable, "source-senders-taken", "raise max_wal_senders, or try again later"),
    (
        ("wal level", "wal_level", "replication slots can only be used"),
        Misconfigured,
        "source-settings",
        "exclave doctor",
    ),
    (("wal file", "wal segment"), Unreachable, "source-wal-gone", "exclave protect"),
    (
        ("connection", "connect to server", "starting up", "shutting down"),
        Unreachable,
        "source-unreachable",
        "exclave doctor",
    ),
)


def _explain(text: str, sqlstate: str) -> ExclaveError:
    low = text.lower()
    for signs, kind, name, hint in _REASONS:
        if sqlstate in signs or any(sign in low for sign in signs):
            what = "The PostgreSQL source is damaged" if kind is Tampered else _WHAT
            return kind(name, what, why=text, hint=hint)
    return Unreachable("source-failed", _WHAT, why=text, hint="exclave doctor")


_WHAT = "The PostgreSQL source cannot be backed up"
