"""The slab being filled, and how file content gets into it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from exclave.registers.slabs import SLAB_BYTES, START, Slab, SlabPool

Extents = list[tuple[int, int]]
"""(offset, length) of data in a file, ascending; its content is these, joined."""


class Filler:
    """The slab being filled. What it hands out belongs to the taker; `close` gives back what is left."""

    def __init__(self, pool: SlabPool) -> None:
        self._pool = pool
        self._slab: Slab | None = None
        self.used = START  # where the next span begins

    @property
    def empty(self) -> bool:
        """Nothing waits to be handed out."""
        return self._slab is None or not self._slab.spans

    def fits(self, size: int) -> bool:
        """Whether `size` bytes go into the present slab."""
        return self.used + size <= START + SLAB_BYTES

    def room(self) -> Slab:
        """The slab to write into, at `used`; waits for one if need be."""
        if self._slab is None:
            self._slab = self._pool.take()
            self.used = START
        return self._slab

    def add(self, ordinal: int, size: int) -> None:
        """The next `size` bytes of the slab are a span."""
        self.room().spans.append((ordinal, self.used, self.used + size))
        self.used += size

    def hand_out(self) -> Slab:
        """The filled slab."""
        slab, self._slab = self.room(), None
        self.used = START
        return slab

    def close(self) -> None:
        """Give back a slab that nobody took."""
        if self._slab is not None:
            self._slab.release()
            self._slab = None


def fill(descriptor: int, memory: memoryview, extents: Extents) -> tuple[int, str]:
    """Read `extents` one after the other into `memory`: bytes read before the end of the file, and what went wrong."""
    got = 0
    for offset, length in extents:
        until = got + length
        at = offset
        while got < until:
            try:
                count = os.preadv(descriptor, [memory[got:until]], at)
            except OSError as error:
                return got, error.strerror or "cannot be read"
            if not count:
                return got, ""
            got += count
            at += count
    return got, ""


def pieces(extents: Extents, limit: int) -> Iterator[Extents]:
    """The same data in portions of `limit` bytes of content each; the last may be shorter."""
    portion: Extents = []
    free = limit
    for begin, whole in extents:
        offset, length = begin, whole
        while length:
            part = min(length, free)
            portion.append((offset, part))
            offset, length, free = offset + part, length - part, free - part
            if not free:
                yield portion
                portion, free = [], limit
    if portion:
        yield portion


def shortened(extents: Extents, size: int) -> Extents:
    """The first `size` bytes of content."""
    for portion in pieces(extents, size) if size else ():
        return portion
    return []
