"""Reusable big buffers that carry content from a register to the sealing stage, and bound its memory."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field

HEADROOM_BYTES = 1 << 20  # in front of `START`: room for the unfinished chunk of the slab before
SLAB_BYTES = 2 << 20  # small enough to stay in a core's second-level cache
START = HEADROOM_BYTES


@dataclass(slots=True, eq=False)
class Slab:
    """Content of one or more files. Valid until `release`.

    `memory` has HEADROOM_BYTES + SLAB_BYTES bytes; content begins at START. `spans` are (ordinal, start, end) in
    `memory`, in order. A file that does not fit goes on in the next slab, which then has only this file's span:
    `more` says so. `position` is the offset in the file of the first span (0 unless a file goes on).
    `page_bytes` > 0 asks for chunks of that fixed size; then the slab has one span only, which starts at a multiple
    of 1 MiB in the file (and, if `more`, is a multiple of 1 MiB long), and `path` names the file, so that the
    same place in the previous snapshot can be looked at first.
    """

    memory: memoryview
    home: SlabPool
    spans: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    position: int = 0
    more: bool = False
    page_bytes: int = 0
    path: bytes = b""

    def release(self) -> None:
        """Give the memory back; the slab must not be used afterwards."""
        self.home.put_back(self.memory)


class SlabPool:
    """A fixed number of slabs, made when first needed. `take` waits until one is free."""

    def __init__(self, count: int = 4) -> None:
        self._free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    def take(self) -> Slab:
        """An empty slab; blocks while all are in use."""
        memory = self._free.get()
        if memory is None:
            memory = memoryview(bytearray(HEADROOM_BYTES + SLAB_BYTES))
        return Slab(memory, self)

    def put_back(self, memory: memoryview) -> None:
        """Only for `Slab.release`."""
        self._free.put(memory)
