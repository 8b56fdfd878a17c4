"""The door to SQLite: connections that disturb the source as little as possible, and its errors as ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from exclave.errors import ExclaveError, Misconfigured, NotThere, Refused, Tampered, Unreachable

PATIENCE_SECONDS = 60.0  # for how long another process may lock the whole database before a capture gives up

_PRIMARY = 0xFF  # the low byte of SQLite's extended result codes


@contextmanager
def source(path: Path, *, patience_seconds: float | None = None) -> Generator[sqlite3.Connection]:
    """A connection to a live database that changes nothing in it.

    In WAL mode it is read-only, because the last one to close a writable one moves the log into the file.
    In the other modes it may write, because a read-only one fails whenever it meets a journal for which no writer
    holds a lock, be it only between two instants of a commit; a writable one waits and looks again. If a writer
    did die in mid-transaction, that rolls its journal back, as the next application would.
    """
    with foreign_errors(path):
        connection = _connect(path, PATIENCE_SECONDS if patience_seconds is None else patience_seconds)
        try:
            connection.execute("PRAGMA query_only=ON")
            yield connection
        finally:
            connection.close()


@contextmanager
def at_rest(path: Path) -> Generator[sqlite3.Connection]:
    """A connection to a database that nobody writes to: no locks, no `-wal`, no `-shm`."""
    with foreign_errors(path):
        connection = _open(path, "mode=ro&immutable=1", 0.0)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def foreign_errors(path: Path) -> Generator[None]:
    """SQLite's and the system's errors, as the kind that says whose move it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise _ours(path, error) from error
    except FileNotFoundError as error:
        raise missing(path) from error
    except PermissionError as error:
        raise _forbidden(path, str(error.strerror)) from error
    except OSError as error:
        raise _unreachable(path, error.strerror or str(error)) from error


def missing(path: Path) -> ExclaveError:
    """There is no such file."""
    hint = "mend the register's path: exclave register show"
    return NotThere("sqlite-missing", f"There is no SQLite database at {path}", hint=hint)


def source_damaged(path: Path, why: str) -> ExclaveError:
    """The database itself is broken."""
    hint = f"sqlite3 '{path}' 'PRAGMA integrity_check'"
    return Tampered("source-damaged", f"The database {path} is damaged", why=why, hint=hint)


def busy(path: Path) -> ExclaveError:
    """Another process keeps the whole database locked."""
    return Unreachable(
        "sqlite-busy",
        f"The database {path} is locked by another process",
        why=f"no reader got in for {PATIENCE_SECONDS:.0f} s",
        hint="end the long transaction, or let the application leave locking_mode=EXCLUSIVE",
    )


def _open(path: Path, options: str, patience_seconds: float) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?{options}"
    connection = sqlite3.connect(
        address, uri=True, timeout=patience_seconds, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # only now the file is looked at
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, patience_seconds: float) -> sqlite3.Connection:
    try:
        connection = _open(path, "mode=ro", patience_seconds)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname not in {"SQLITE_READONLY_ROLLBACK", "SQLITE_READONLY_RECOVERY"}:
            raise
    else:
        if journal_mode(connection) == "wal":
            return connection
        connection.close()
    return _open(path, "mode=rw", patience_seconds)


def journal_mode(connection: sqlite3.Connection) -> str:
    """`wal`, or any other word: the other modes are not a property of the file."""
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0])


def _ours(path: Path, error: sqlite3.DatabaseError) -> ExclaveError:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & _PRIMARY
    why = str(error)
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        if code == sqlite3.SQLITE_NOTADB:
            why += " (damaged, encrypted, or something else)"
        return source_damaged(path, why)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return busy(path)
    if code == sqlite3.SQLITE_CANTOPEN and not path.exists():
        return missing(path)
    if code in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}:
        return _forbidden(path, why)
    return _unreachable(path, why)


def _forbidden(path: Path, why: str) -> ExclaveError:
    return Misconfigured(
        "sqlite-unreadable",
        f"The database {path} cannot be opened",
        why=why,
        hint="give the user that runs exclave leave to read the file and to write in its folder",
    )


def _unreachable(path: Path, why: str) -> ExclaveError:
    return Unreachable(
        "sqlite-unreachable", f"The database {path} cannot be read", why=why, hint="exclave doctor"
    )


def no_room(folder: Path, why: str) -> ExclaveError:
    """The copy cannot be written."""
    return Unreachable(
        "sqlite-no-room",
        f"The temporary copy in {folder} cannot be written",
        why=why,
        hint="free some space there, or set `state` to a folder with more room",
    )


def refuse_place(why: str) -> ExclaveError:
    """What was restored is not one SQLite database."""
    return Refused("sqlite-not-one-file", "The restored folder does not hold one SQLite database", why=why)
