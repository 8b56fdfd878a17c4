"""The SQLite register: one database file, told as a tree of one file cut by page."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from exclave.errors import ExclaveError
from exclave.registers.base import Finding, Prior, Told
from exclave.registers.slabs import SlabPool
from exclave.registers.sqlite import checking, connecting, standing
from exclave.registers.sqlite.capture import SqliteCapture

LONG_COPY_BYTES = 1 << 30  # copying it takes seconds, and applications often wait five for a lock


class SqliteRegister:
    """`path` is the database (a link is followed). Copies go to `temporary`, or the system's temporary folder."""

    def __init__(self, path: Path, *, temporary: Path | None = None) -> None:
        self._path = path
        self._temporary = temporary

    @property
    def kind(self) -> str:
        """`sqlite`."""
        return "sqlite"

    @contextmanager
    def capture(self, prior: Prior, slabs: SlabPool, told: Told) -> Generator[SqliteCapture]:
        """A reading; needs as much temporary space as the database is big, unless nothing changed."""
        with ExitStack() as held:
            yield SqliteCapture(self._path, self._temporary, prior, slabs, told, held)

    def size_hint(self) -> int:
        """Size of the file; 0 when it cannot be seen."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def doctor(self) -> list[Finding]:
        """Is there, can be read, is a database, its journal mode, room for the copy."""
        try:
            with connecting.foreign_errors(self._path):
                size = standing.look(self._path).main.st_size
            if 0 < size < checking.MIN_PAGE_BYTES:
                raise connecting.source_damaged(self._path, f"{size} bytes are less than one page")
            with connecting.source(self._path, patience_seconds=1.0) as live:
                mode = connecting.journal_mode(live)
                pages = int(live.execute("PRAGMA page_count").fetchone()[0])
        except ExclaveError as error:
            if error.id == "sqlite-unreadable" and standing.at_rest(self._path):
                return [
                    Finding(
                        "sqlite-read-only",
                        "warn",
                        f"{self._path} can be captured only while no application has it open: {error.why}",
                        error.hint,
                    )
                ]
            level = "warn" if error.id == "sqlite-busy" else "fail"
            return [Finding(error.id, level, str(error), error.hint or "exclave explain " + error.id)]
        findings = [Finding("sqlite-database", "ok", f"{self._path}: {pages} pages, {size} bytes")]
        findings.append(_journal(mode, size, self._path))
        findings.append(_room(self._temporary or Path(tempfile.gettempdir()), size))
        return findings


def _room(folder: Path, size: int) -> Finding:
    try:
        while not folder.exists() and folder != folder.parent:  # it will be made
            folder = folder.parent
        free = shutil.disk_usage(folder).free
    except OSError as error:
        text = f"{folder}: {error.strerror}"
        return Finding("sqlite-no-room", "fail", text, "set `state` to a folder with more room")
    if free < size + (size >> 4):
        return Finding(
            "sqlite-no-room",
            "fail",
            f"{free} bytes are free in {folder}; a copy takes {size}",
            "free some space there, or set `state` to a folder with more room",
        )
    return Finding("sqlite-room", "ok", f"room for the temporary copy in {folder}")


def _journal(mode: str, size: int, path: Path) -> Finding:
    if mode == "wal":
        return Finding("sqlite-journal-mode", "ok", "journal mode WAL: captures do not hold up writers")
    text = "a rollback journal: a busy writer may wait once, for as long as copying the file takes"
    if size < LONG_COPY_BYTES:
        return Finding("sqlite-journal-mode", "ok", text)
    return Finding(
        "sqlite-journal-mode",
        "warn",
        f"{text}, and {size >> 20} MiB take a while",
        f"if its applications allow it: sqlite3 '{path}' 'PRAGMA journal_mode=WAL'",
    )
