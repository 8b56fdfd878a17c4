"""One reading of a SQLite database: nothing when nothing was written, else a copy, told page by page."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from exclave.errors import ExclaveError, Misconfigured, Unreachable
from exclave.registers.base import Event, Prior, SameFolder, Told
from exclave.registers.slabs import SLAB_BYTES, START, SlabPool
from exclave.registers.sqlite import checking, connecting, copying, describing, standing
from exclave.types import Gap, Instant

MIN_PAGE_BYTES = 4096  # databases with smaller pages are cut by several of them
_MAX_TRIES = 5
_RETRY_SECONDS = 0.05


class SqliteCapture:
    """One reading. Everything opened is closed with the capture's context."""

    def __init__(
        self,
        path: Path,
        temporary: Path | None,
        prior: Prior,
        slabs: SlabPool,
        told: Told,
        held: ExitStack,
    ) -> None:
        self._path = path
        self._name = os.fsencode(path.name)
        self._temporary = temporary
        self._prior = prior
        self._slabs = slabs
        self._told = told
        self._held = held
        self._at = Instant(0)
        self._position = ""
        self._environment: dict[str, Any] = {}

    def changes(self) -> Iterator[Event]:
        """The database's pages and the listing; or only that nothing changed."""
        self._at = Instant(time.time_ns())
        before = self._look()
        listing = self._prior.folder(b"")
        if listing is not None and before.same_as(listing, self._name):
            self._describe_unchanged(before)
            self._told(1, 0)
            yield SameFolder(b"")
            return
        descriptor, size = self._copy(before)
        head = checking.header(os.pread(descriptor, checking.HEADER_BYTES, 0))
        assert head is not None  # the copy was checked
        self._position = str(head.change_counter)
        page_bytes = max(MIN_PAGE_BYTES, head.page_bytes)
        for offset in range(0, size, SLAB_BYTES):
            slab = self._slabs.take()
            length = min(SLAB_BYTES, size - offset)
            try:
                with connecting.foreign_errors(self._path):
                    _read_fully(descriptor, slab.memory[START : START + length], offset)
            except BaseException:
                slab.release()
                raise
            slab.spans = [(0, START, START + length)]
            slab.position, slab.more = offset, offset + length < size
            slab.page_bytes, slab.path = page_bytes, self._name
            yield slab
            self._told(1, offset + length)
        yield before.listing(self._name, size, page_bytes, 0)

    def consistent_at(self) -> Instant:
        """Everything that was committed before it is in."""
        return self._at

    def position(self) -> str:
        """The change counter in the copy's header (in WAL mode it does not count every transaction)."""
        return self._position

    def environment(self) -> dict[str, Any]:
        """Version, settings, hash of the schema, owners."""
        return self._environment

    def gaps(self) -> list[Gap]:
        """None: a database is captured whole or not at all."""
        return []

    def settle(self) -> None:
        """Nothing is kept at the source."""

    def _look(self) -> standing.Standing:
        with connecting.foreign_errors(self._path):
            found = standing.look(self._path)
        if not stat.S_ISREG(found.main.st_mode):
            raise Misconfigured(
                "sqlite-unreadable",
                f"{self._path} is not a file",
                why="a SQLite register is one file",
                hint="mend the register's path: exclave register show",
            )
        if 0 < found.main.st_size < checking.MIN_PAGE_BYTES:  # SQLite would take it for an empty one
            raise connecting.source_damaged(self._path, f"{found.main.st_size} bytes are less than one page")
        return found

    def _describe_unchanged(self, found: standing.Standing) -> None:
        try:
            with connecting.source(self._path) as live:
                wal = connecting.journal_mode(live) == "wal"
                environment = describing.describe(live, wal=wal)
        except Misconfigured:  # its folder is read-only
            with connecting.at_rest(self._path) as resting:
                environment = describing.describe(resting, wal=False)
        self._environment = environment | {"owners": describing.owners(found.main, found.folder)}

    def _copy(self, before: standing.Standing) -> tuple[int, int]:
        """An open descriptor of a checked copy, and its size. Nothing else is left of it on disk."""
        with ExitStack() as passing:
            folder = passing.enter_context(copying.temporary_folder(self._temporary))
            place = folder / "copy"
            self._copy_to(place, tries=_MAX_TRIES)
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            self._held.callback(os.close, descriptor)
            size = os.fstat(descriptor).st_size
            fault = checking.fault(lambda offset, length: os.pread(descriptor, length, offset), size)
            if fault is not None:
                raise connecting.source_damaged(self._path, fault)
            head = checking.header(os.pread(descriptor, checking.HEADER_BYTES, 0))
            with connecting.at_rest(place) as copied:
                environment = describing.describe(copied, wal=head is not None and head.wal)
            self._environment = environment | {"owners": describing.owners(before.main, before.folder)}
        return descriptor, size

    def _copy_to(self, place: Path, *, tries: int) -> None:
        try:
            with connecting.source(self._path) as live:
                self._at = copying.copy(live, self._path, place, lambda _: self._told(0, 0))
        except Misconfigured as error:
            place.unlink(missing_ok=True)
            if standing.at_rest(self._path):
                self._copy_at_rest(place, error)
            elif tries > 1 and os.access(self._path, os.R_OK, effective_ids=True):
                # Without leave to write, a journal seen in the midst of a commit cannot be told from a dead one.
                time.sleep(_RETRY_SECONDS)
                self._copy_to(place, tries=tries - 1)
            else:
                raise

    def _copy_at_rest(self, place: Path, error: ExclaveError) -> None:
        """A copy from a folder in which SQLite may not make the files that it needs for its locks.

        Reads without locks, and sees that nobody wrote meanwhile.
        """
        for _ in range(_MAX_TRIES):
            place.unlink(missing_ok=True)
            if not standing.at_rest(self._path):
                raise error
            before = self._look()
            self._at = Instant(time.time_ns())
            with connecting.at_rest(self._path) as resting:
                copying.copy(resting, self._path, place, lambda _: None)
            after = self._look()
            if standing.at_rest(self._path) and before.fingerprint == after.fingerprint and after.settled:
                return
            time.sleep(standing.SETTLED_NS / 1e9)
        raise Unreachable(
            "sqlite-busy",
            f"The database {self._path} is written to all the time",
            why="and its folder is read-only for us, so that it cannot be locked",
            hint=error.hint,
        ) from error


def _read_fully(descriptor: int, memory: memoryview, offset: int) -> None:
    while memory:
        count = os.preadv(descriptor, [memory], offset)
        if not count:
            raise OSError(0, "the temporary copy was cut short")
        memory, offset = memory[count:], offset + count
