"""Reads a register as the sealing side would, and checks every rule of the port while doing so."""

from __future__ import annotations

import itertools
import stat
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exclave.listing import AS_BEFORE, MODE, NO_CONTENT, ROOT, SIZE, STATS, Listing
from exclave.registers.base import Event, Register, SameFolder
from exclave.registers.slabs import SLAB_BYTES, START, Slab, SlabPool
from exclave.types import Gap

_MEBIBYTE = 1 << 20


class GuardedPool(SlabPool):
    """Three slabs, never waited for; what is given back is overwritten, so that late use shows."""

    def __init__(self, count: int = 3) -> None:
        super().__init__(count)
        self.count = count
        self.out = 0

    def take(self) -> Slab:
        """As SlabPool, but having all slabs out is an error: nobody is there to give one back."""
        assert self.out < self.count, "more slabs held than a pool may have"
        self.out += 1
        return super().take()

    def put_back(self, memory: memoryview) -> None:
        """As SlabPool, after overwriting."""
        self.out -= 1
        assert self.out >= 0, "a slab was given back twice"
        memory[START : START + 4096] = b"\xaa" * 4096
        super().put_back(memory)


@dataclass(slots=True)
class Remembered:
    """A Prior: the complete listings of a snapshot."""

    folders: dict[bytes, Listing] = field(default_factory=dict[bytes, Listing])
    content: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])

    def folder(self, path: bytes) -> Listing | None:
        """As the port says."""
        return self.folders.get(path)


@dataclass(slots=True)
class Observation:
    """What one capture told. `content` is by path, for regular files; holes are left out."""

    remembered: Remembered = field(default_factory=Remembered)
    same: set[bytes] = field(default_factory=set[bytes])
    read: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    slabs: int = 0
    consistent_at: int = 0  # an Instant
    position: str = ""
    environment: dict[str, Any] = field(default_factory=dict[str, Any])
    gaps: list[Gap] = field(default_factory=list[Gap])
    progress: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    @property
    def content(self) -> dict[bytes, bytes]:
        """Path -> content of every regular file."""
        return self.remembered.content


def observe(register: Register, prior: Remembered) -> Observation:
    """Capture to the end and settle. AssertionError when the port's rules are broken."""
    pool = GuardedPool()
    reader = _Reader(prior)
    seen = reader.seen
    with register.capture(prior, pool, lambda files, size: seen.progress.append((files, size))) as capture:
        for event in capture.changes():
            reader.take(event)
        reader.end()
        assert pool.out == 0, "slabs were kept beyond the end"
        seen.consistent_at = capture.consistent_at()
        seen.position = capture.position()
        seen.environment = capture.environment()
        seen.gaps = capture.gaps()
        capture.settle()
        capture.settle()
    return seen


class _Reader:
    """Takes events one by one."""

    def __init__(self, prior: Remembered) -> None:
        self.seen = Observation()
        self._prior = prior
        self._parts: dict[int, bytearray] = {}  # ordinal -> content so far; taken out when listed
        self._pages: dict[int, tuple[int, bytes]] = {}  # ordinal -> page size, path
        self._last = -1
        self._open: int | None = None  # the ordinal that goes on in the next slab

    def take(self, event: Event) -> None:
        if isinstance(event, Slab):
            self._slab(event)
            event.release()
            return
        assert self._open is None, "told a folder in the midst of a file"
        assert event.path not in self.seen.remembered.folders, f"{event.path!r} was told twice"
        if isinstance(event, SameFolder):
            self._same(event.path)
        else:
            self._listing(event)

    def end(self) -> None:
        assert self._open is None, "the last file has no end"
        folders = self.seen.remembered.folders
        assert b"" in folders, "the top folder was not told"
        for path in folders:
            if path:
                parent, _, name = path.rpartition(b"/")
                assert parent in folders, f"{path!r} has no parent"
                listing = folders[parent]
                assert name in listing.names, f"{path!r} is no entry of its parent"
                assert stat.S_ISDIR(int(listing.stats[listing.names.index(name), MODE]))

    def _slab(self, slab: Slab) -> None:
        self.seen.slabs += 1
        assert slab.spans, "an empty slab"
        assert len(slab.memory) == START + SLAB_BYTES
        at = START
        for number, (ordinal, start, end) in enumerate(slab.spans):
            assert at <= start < end <= START + SLAB_BYTES, "spans overlap, are empty or leave the slab"
            at = end
            if number == 0 and self._open is not None:
                assert ordinal == self._open, "another file began before the last one ended"
                assert len(slab.spans) == 1, "a slab in which a file goes on has other files too"
                assert slab.position == len(self._parts[ordinal]), "a file goes on at another offset"
            else:
                assert ordinal > self._last, "ordinals grow from file to file"
                assert number or slab.position == 0, "a new file begins at offset 0"
                self._parts[ordinal] = bytearray()
                self._last = ordinal
            self._parts[ordinal] += slab.memory[start:end]
        last = slab.spans[-1][0]
        if not slab.page_bytes:
            first = slab.position == 0
            whole = slab.more or len(self._parts[last]) > _MEBIBYTE or first
            assert whole, "a file of up to 1 MiB comes as one span"
        else:
            self._paged(slab)
        self._pages[last] = (slab.page_bytes, slab.path)
        self._open = last if slab.more else None

    def _paged(self, slab: Slab) -> None:
        assert len(slab.spans) == 1, "a paged slab has one span"
        assert slab.position % _MEBIBYTE == 0, "a paged span starts at a multiple of 1 MiB"
        assert _MEBIBYTE % slab.page_bytes == 0, "pages divide 1 MiB"
        assert slab.path, "a paged slab names its file"
        ordinal, start, end = slab.spans[0]
        assert not slab.more or (end - start) % _MEBIBYTE == 0, "a paged span is a multiple of 1 MiB long"
        assert self._pages.get(ordinal, (slab.page_bytes, slab.path)) == (slab.page_bytes, slab.path)

    def _same(self, path: bytes) -> None:
        before = self._prior.folders.get(path)
        assert before is not None, f"{path!r} cannot be the same: there was none"
        self.seen.same.add(path)
        self.seen.remembered.folders[path] = before
        for name in before.names:
            inner = _join(path, name)
            if inner in self._prior.content:
                self.seen.content[inner] = self._prior.content[inner]

    def _listing(self, listing: Listing) -> None:
        rows = len(listing.names)
        assert listing.names == sorted(set(listing.names)), "names are sorted and unique"
        assert listing.stats.shape == (rows, STATS)
        assert listing.content.shape == listing.page_bytes.shape == (rows,)
        assert listing.stats.dtype == listing.content.dtype == np.int64
        assert listing.page_bytes.dtype == np.int32
        assert all(0 <= row < rows and extra for row, extra in listing.extras.items())
        assert (ROOT in listing.names) == (not listing.path), "the top folder alone describes itself"
        for row, name in enumerate(listing.names):
            assert name == ROOT or (name not in {b"", b".", b".."} and not {0, 47} & set(name)), (
                f"name {name!r}"
            )
            self._row(listing, row, _join(listing.path, name))
        self.seen.remembered.folders[listing.path] = listing

    def _row(self, listing: Listing, row: int, path: bytes) -> None:
        content, size = int(listing.content[row]), int(listing.stats[row, SIZE])
        extra = listing.extras.get(row, {})
        regular = stat.S_ISREG(int(listing.stats[row, MODE]))
        assert regular or size == 0, f"{path!r} is no file and has a size"
        if not regular or "twin" in extra:
            assert content == NO_CONTENT, f"{path!r} cannot have content"
            return
        length = sum(length for _, length in extra["holes"]) if "holes" in extra else size
        if content >= 0:
            data = self._parts.pop(content, None)
            assert data is not None, (
                f"{path!r} names an ordinal that no slab carried, or that another file has"
            )
            assert self._pages.pop(content, (0, b""))[0] == listing.page_bytes[row], f"page size of {path!r}"
            self.seen.read[path] = self.seen.content[path] = bytes(data)
        elif content == AS_BEFORE:
            assert path in self._prior.content, f"{path!r} cannot be as before"
            self.seen.content[path] = self._prior.content[path]
        else:
            assert content == NO_CONTENT
            self.seen.content[path] = b""
        assert len(self.seen.content[path]) == length, f"size of {path!r} is not that of its content"
        if "holes" in extra:
            assert all(length > 0 for _, length in extra["holes"])
            ends = [0, *itertools.chain(*((offset, offset + part) for offset, part in extra["holes"])), size]
            assert ends == sorted(ends), f"data of {path!r} overlaps or leaves it"


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
