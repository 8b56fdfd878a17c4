"""Files that wait for their content: numbered, a folder's worth at a time, in columns."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from exclave.listing import Extra, Listing
from exclave.registers.files.dressing import Look


@dataclass(slots=True)
class Batch:
    """The files of one folder that have content. Their numbers begin at `base`; `rows` are theirs in the listing."""

    base: int
    folder: int
    names: list[bytes]
    stats: list[list[int]]  # mode, uid, gid, size, mtime
    extras: dict[int, Extra]  # by place in this batch
    left: array[int]  # bytes of content not yet written
    begun: bytearray = field(default_factory=bytearray)
    unfinished: int = 0

    def look(self, at: int) -> Look:
        """What file `at` is to look like."""
        mode, uid, gid, _size, mtime = self.stats[at]
        return Look(mode, uid, gid, mtime, self.extras[at].get("xattrs", {}) if at in self.extras else {})

    def places(self, at: int, offset: int, length: int) -> list[tuple[int, int]]:
        """(offset, length) in file `at` of a piece of content, around the holes."""
        holes = self.extras[at].get("holes") if at in self.extras else None
        if holes is None:
            return [(offset, length)]
        starts = [0, *accumulate(part for _, part in holes)]
        found: list[tuple[int, int]] = []
        extent = bisect_right(starts, offset) - 1
        while length:
            inside = offset - starts[extent]
            part = min(length, holes[extent][1] - inside)
            found.append((holes[extent][0] + inside, part))
            offset, length, extent = offset + part, length - part, extent + 1
        return found


class Batches:
    """All files that wait. A batch that is complete is forgotten."""

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._batches: list[Batch | None] = []
        self._next = 0

    def add(
        self, folder: int, listing: Listing, rows: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Number the files in `rows` of a listing, with `lengths` bytes of content each."""
        chosen = rows.tolist()
        batch = Batch(
            self._next,
            folder,
            [listing.names[row] for row in chosen],
            listing.stats[rows, :5].tolist(),
            {at: listing.extras[row] for at, row in enumerate(chosen) if row in listing.extras},
            array("q", lengths.tolist()),
            bytearray(len(chosen)),
            len(chosen),
        )
        self._bases.append(self._next)
        self._batches.append(batch)
        self._next += len(chosen)
        return np.arange(batch.base, self._next, dtype=np.int64)

    def find(self, number: int) -> Batch:
        """The batch of a file that is not complete. Raises ValueError for any other number."""
        at = bisect_right(self._bases, number) - 1
        batch = self._batches[at] if 0 <= number < self._next else None
        if batch is None:
            raise ValueError(f"no file {number} waits for content")
        return batch

    def done(self, batch: Batch) -> None:
        """One more file of the batch is complete."""
        batch.unfinished -= 1
        if not batch.unfinished:
            self._batches[bisect_right(self._bases, batch.base) - 1] = None

    def incomplete(self) -> list[tuple[Batch, int]]:
        """Files that still wait: (batch, place in it)."""
        return [
            (batch, at)
            for batch in self._batches
            if batch is not None
            for at, left in enumerate(batch.left)
            if left
        ]
