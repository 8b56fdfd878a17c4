"""A consistent copy of a live database, with the least waiting for those who write to it.

In WAL mode a reader blocks nobody: one read transaction spans the whole copy, whatever is committed meanwhile.

In the other modes a reader keeps writers from committing. So the copy is made in steps of a few MiB that hold the
shared lock for some milliseconds each; a commit between two steps makes SQLite begin anew. A database that is
written to all the time would begin anew for ever: after MAX_RESTARTS the whole copy is one step, during which
writers wait once, as long as copying the file takes. (`VACUUM INTO` would hold the same lock for longer, and
reorders the pages, so that nothing could be deduplicated.)
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path

from exclave import leavings
from exclave.registers.sqlite import connecting
from exclave.registers.sqlite.connecting import busy, foreign_errors, journal_mode, no_room
from exclave.types import Instant

STEP_BYTES = 4 << 20
MAX_RESTARTS = 3
_RETRY_SECONDS = 0.005
_PREFIX = "exclave-sqlite-"


class _BegunAnewTooOftenError(Exception):
    """Leaves `Connection.backup` from inside its callback."""


class _TooLongLockedError(Exception):
    """Likewise."""


class _Watch:
    """Follows a backup step by step: counts restarts, notes when the state that it will have was current."""

    def __init__(self, limit: int | None, told: Callable[[int], None], page_bytes: int) -> None:
        self.consistent_at = Instant(time.time_ns())
        self._limit = limit
        self._told = told
        self._page_bytes = page_bytes
        self._step_begins = time.time_ns()
        self._moved = time.monotonic()
        self._copied = 0
        self._restarts = 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        """SQLite's callback after every step."""
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            if time.monotonic() - self._moved > connecting.PATIENCE_SECONDS:
                raise _TooLongLockedError
            self._step_begins = time.time_ns()
            if not self._copied:
                self.consistent_at = Instant(self._step_begins)
            return
        copied = total - remaining
        if copied <= self._copied and remaining:
            self.consistent_at = Instant(self._step_begins)
            self._restarts += 1
            if self._limit is not None and self._restarts > self._limit:
                raise _BegunAnewTooOftenError
        self._copied = copied
        self._told(copied * self._page_bytes)
        self._moved = time.monotonic()
        self._step_begins = time.time_ns()


def copy(
    live: sqlite3.Connection,
    path: Path,
    place: Path,
    told: Callable[[int], None],
    *,
    step_bytes: int = STEP_BYTES,
) -> Instant:
    """Copy the database behind `live` (at `path`) to `place`, which must not exist.

    Returns an instant of which everything committed before is in the copy. `told` gets the bytes copied so far,
    now and then; after a restart they are fewer. Raises Tampered, Unreachable.
    """
    with foreign_errors(path):
        page_bytes = int(live.execute("PRAGMA page_size").fetchone()[0])
        mode = journal_mode(live)
    step = max(1, step_bytes // page_bytes)
    if mode == "wal":
        return _in_one_transaction(live, path, place, _Watch(None, told, page_bytes), step)
    try:
        return _run(live, path, place, _Watch(MAX_RESTARTS, told, page_bytes), step)
    except _BegunAnewTooOftenError:
        place.unlink(missing_ok=True)
        return _run(live, path, place, _Watch(None, told, page_bytes), -1)


def _in_one_transaction(
    live: sqlite3.Connection, path: Path, place: Path, watch: _Watch, step: int
) -> Instant:
    with foreign_errors(path):
        live.execute("BEGIN")
        begun = Instant(time.time_ns())
        live.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()  # only this takes the snapshot
    try:
        _run(live, path, place, watch, step)
    finally:
        live.rollback()
    return begun


def _run(live: sqlite3.Connection, path: Path, place: Path, watch: _Watch, step: int) -> Instant:
    with foreign_errors(path):
        try:
            with closing(sqlite3.connect(place, isolation_level=None)) as target:
                # Nobody needs this file after a crash.
                target.execute("PRAGMA journal_mode=OFF").fetchone()
                target.execute("PRAGMA synchronous=OFF")
                live.backup(target, pages=step, progress=watch, sleep=_RETRY_SECONDS)
        except _TooLongLockedError as error:
            raise busy(path) from error
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise no_room(place.parent, str(error)) from error
            raise
    return watch.consistent_at


@contextmanager
def temporary_folder(parent: Path | None) -> Generator[Path]:
    """A private folder for one copy. Removes what captures that were killed left behind.

    A folder in use is locked by its process; so a lock that can be had means that its owner is dead.
    """
    parent = parent or Path(tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        folder = leavings.make(parent, _PREFIX)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise no_room(parent, error.strerror or str(error)) from error
    try:
        yield folder
    finally:
        leavings.remove(folder)
        os.close(lock)


def _remove_leftovers(parent: Path) -> None:
    for folder in parent.glob(_PREFIX + "*"):
        try:
            if time.time() - folder.stat().st_mtime < 1:
                continue  # made this very moment, not locked yet
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another user's, or gone
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # in use
        finally:
            os.close(lock)
