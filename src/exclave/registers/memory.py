"""A register in memory: a mapping of paths to content, for tests and trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exclave.listing import AS_BEFORE, NO_CONTENT, ROOT, SIZE, STATS, Listing
from exclave.registers.base import Event, Finding, Prior, SameFolder, Told
from exclave.registers.slabs import SLAB_BYTES, START, Slab, SlabPool
from exclave.types import Gap, Instant

_FILE_MODE = 0o100644
_FOLDER_MODE = 0o040755


class MemoryRegister:
    """`files` maps paths (relative, parts joined by `/`) to content, and may be changed between captures.

    `page_bytes` > 0 cuts every file by that page. `fault` is called with the path of each file before it is read,
    and may raise. `now` gives nanoseconds since 1970.
    """

    def __init__(
        self,
        files: dict[bytes, bytes],
        *,
        kind: str = "files",
        page_bytes: int = 0,
        fault: Callable[[bytes], None] | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.files = files
        self.page_bytes = page_bytes
        self.fault = fault
        self.settled = 0  # how often `settle` was called
        self._kind = kind
        self._now = now
        self._seen: dict[bytes, tuple[bytes, int]] = {}  # path -> content when last captured, its version
        self._version = 0

    @property
    def kind(self) -> str:
        """As given to the constructor."""
        return self._kind

    @contextmanager
    def capture(self, prior: Prior, slabs: SlabPool, told: Told) -> Generator[MemoryCapture]:
        """A reading of a copy of `files` as they are now."""
        yield MemoryCapture(self, dict(self.files), prior, slabs, told)

    def size_hint(self) -> int:
        """The exact number of bytes."""
        return sum(map(len, self.files.values()))

    def doctor(self) -> list[Finding]:
        """Always fit."""
        return [Finding("memory-register", "ok", f"{len(self.files)} files in memory")]

    def instant(self) -> Instant:
        """Now, by the register's clock."""
        return Instant(self._now())

    def version(self, path: bytes, content: bytes) -> int:
        """A number that grows whenever the content at `path` differs from the last capture's."""
        known = self._seen.get(path)
        if known is None or known[0] != content:
            self._version += 1
            known = (content, self._version)
            self._seen[path] = known
        return known[1]


class MemoryCapture:
    """One reading of a MemoryRegister."""

    def __init__(
        self, register: MemoryRegister, files: dict[bytes, bytes], prior: Prior, slabs: SlabPool, told: Told
    ) -> None:
        self._register = register
        self._files = files
        self._prior = prior
        self._slabs = slabs
        self._told = told
        self._begun = register.instant()
        self._ordinal = 0
        self._read_bytes = 0

    def changes(self) -> Iterator[Event]:
        """Folders sorted by path, each after the slabs of its files."""
        for path, entries in sorted(_folders(self._files).items()):
            yield from self._folder(path, entries)
        self._told(self._ordinal, self._read_bytes)

    def consistent_at(self) -> Instant:
        """When the context was entered."""
        return self._begun

    def position(self) -> str:
        """None."""
        return ""

    def environment(self) -> dict[str, Any]:
        """The one owner that all files have."""
        return {"owners": {"users": {"0": "root"}, "groups": {"0": "root"}}}

    def gaps(self) -> list[Gap]:
        """Never any."""
        return []

    def settle(self) -> None:
        """Counted on the register."""
        self._register.settled += 1

    def _folder(self, path: bytes, entries: dict[bytes, bytes | None]) -> Iterator[Event]:
        listing = self._list(path, entries)
        before = self._prior.folder(path)
        known = {} if before is None else {name: row for row, name in enumerate(before.names)}
        reads: list[tuple[int, bytes]] = []
        same = before is not None and listing.names == before.names
        for row, name in enumerate(listing.names):
            content = entries[name]
            old = known.get(name)
            unchanged = (
                before is not None
                and old is not None
                and np.array_equal(listing.stats[row], before.stats[old])
                and listing.page_bytes[row] == before.page_bytes[old]
            )
            same = same and unchanged
            if content:
                listing.content[row] = AS_BEFORE
                if not unchanged:
                    reads.append((row, content))
        if same:
            yield SameFolder(path)
            return
        yield from self._read(listing, reads)
        yield listing

    def _list(self, path: bytes, entries: dict[bytes, bytes | None]) -> Listing:
        names = sorted(entries)
        stats: NDArray[np.int64] = np.zeros((len(names), STATS), np.int64)
        page_bytes: NDArray[np.int32] = np.zeros(len(names), np.int32)
        for row, name in enumerate(names):
            content = entries[name]
            if content is None:
                stats[row] = (_FOLDER_MODE, 0, 0, 0, 0, 0, 0, 0)
                continue
            version = self._register.version(_join(path, name), content)
            stats[row] = (_FILE_MODE, 0, 0, len(content), version, version, version, 0)
            page_bytes[row] = self._register.page_bytes if content else 0
        content_column: NDArray[np.int64] = np.full(len(names), NO_CONTENT, np.int64)
        return Listing(path, names, stats, content_column, page_bytes)

    def _read(self, listing: Listing, reads: list[tuple[int, bytes]]) -> Iterator[Event]:
        """Slabs with the content of `reads`; notes each ordinal in the listing."""
        waiting: Slab | None = None
        try:
            for row, content in reads:
                path = _join(listing.path, listing.names[row])
                if self._register.fault is not None:
                    self._register.fault(path)
                listing.content[row] = self._ordinal
                page = int(listing.page_bytes[row])
                used = waiting.spans[-1][2] - START if waiting is not None and waiting.spans else 0
                if waiting is not None and (page or used + int(listing.stats[row, SIZE]) > SLAB_BYTES):
                    full, waiting = waiting, None
                    yield full
                for offset in range(0, len(content), SLAB_BYTES):
                    if waiting is None:
                        waiting = self._slabs.take()
                    part = content[offset : offset + SLAB_BYTES]
                    start = waiting.spans[-1][2] if waiting.spans else START
                    waiting.memory[start : start + len(part)] = part
                    waiting.spans.append((self._ordinal, start, start + len(part)))
                    if not waiting.spans[:-1]:
                        waiting.position = offset
                    waiting.more = offset + len(part) < len(content)
                    waiting.page_bytes = page
                    waiting.path = path if page else b""
                    if page or len(content) > SLAB_BYTES:
                        full, waiting = waiting, None
                        yield full
                self._ordinal += 1
                self._read_bytes += len(content)
                self._told(self._ordinal, self._read_bytes)
            if waiting is not None:
                full, waiting = waiting, None
                yield full
        finally:
            if waiting is not None:
                waiting.release()


def _folders(files: dict[bytes, bytes]) -> dict[bytes, dict[bytes, bytes | None]]:
    """Folder -> name -> content, None for a folder; the top folder describes itself as `.`."""
    folders: dict[bytes, dict[bytes, bytes | None]] = {b"": {ROOT: None}}
    for path, content in files.items():
        parent, _, name = path.rpartition(b"/")
        folders.setdefault(parent, {})[name] = content
        while parent:
            above, _, name = parent.rpartition(b"/")
            folders.setdefault(above, {})[name] = None
            parent = above
    return folders


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
