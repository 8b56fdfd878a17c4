"""Fills slabs with the content of files that arrive one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from exclave.listing import NO_CONTENT
from exclave.registers.slabs import SLAB_BYTES, START, Slab, SlabPool

_END = START + SLAB_BYTES
_WHOLE_BYTES = 1 << 20  # a file up to this size is one span


class Slabber:
    """Call `begin`, `write` as often as needed, `end` for each file; `flush` at last.

    Each yields the slabs that became full; the receiver owns them. At most one slab is held here, and none while
    waiting for the next one.
    """

    def __init__(self, pool: SlabPool) -> None:
        self._pool = pool
        self._slab: Slab | None = None
        self._at = START  # end of what is written in the slab
        self._begun = START  # where the current file's span begins in it
        self._ordinal = -1
        self._written = 0  # bytes of the current file so far
        self._path = b""
        self._page_bytes = 0
        self._alone = False  # the current file shares its slabs with no other

    def begin(self, path: bytes, size: int | None, *, page_bytes: int = 0) -> Iterator[Slab]:
        """The next file; `size` None when it is not known before its end."""
        alone = page_bytes > 0 or size is None or size > _WHOLE_BYTES
        if self._slab is not None and (alone or self._alone or self._at + (size or 0) > _END):
            yield from self.flush()
        self._alone = alone
        self._ordinal += 1
        self._path, self._page_bytes = path, page_bytes
        self._written = 0
        self._begun = self._at

    def write(self, data: memoryview) -> Iterator[Slab]:
        """More of the current file's content."""
        while data:
            if self._slab is not None and self._at == _END:
                yield self._close(more=True)
            if self._slab is None:
                self._slab = self._pool.take()
                self._slab.position = self._written
                self._slab.page_bytes = self._page_bytes
                self._slab.path = self._path if self._page_bytes else b""
                self._at = self._begun = START
            take = min(len(data), _END - self._at)
            self._slab.memory[self._at : self._at + take] = data[:take]
            self._at += take
            self._written += take
            data = data[take:]

    def end(self) -> int:
        """The ordinal under which the file's content was carried; NO_CONTENT if there was none."""
        if self._written == 0:
            self._ordinal -= 1
            return NO_CONTENT
        if self._slab is not None and self._at > self._begun:
            self._slab.spans.append((self._ordinal, self._begun, self._at))
            self._begun = self._at
        return self._ordinal

    def flush(self) -> Iterator[Slab]:
        """The slab that is not full yet, if there is one. Only between files."""
        if self._slab is not None:
            yield self._close(more=False)

    def abandon(self) -> None:
        """Give back what is held; for a reading that is broken off."""
        if self._slab is not None:
            self._slab.release()
            self._slab = None

    def _close(self, *, more: bool) -> Slab:
        slab = self._slab
        if slab is None:
            raise ValueError("no slab is open")
        if more:
            slab.spans.append((self._ordinal, self._begun, self._at))
            slab.more = True
        self._slab = None
        self._at = self._begun = START
        return slab
