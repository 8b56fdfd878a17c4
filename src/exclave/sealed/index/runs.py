"""One sorted run: build it, search it, read it in order. The bytes come through a `Read`; no file is known here."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from exclave.crypto.hashing import sha256
from exclave.sealed.index import blocks
from exclave.sealed.index.blocks import BLOCK_BYTES, BLOCK_RECORDS, Footer, Records
from exclave.types import Buffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEW = 12  # ids up to which plain Python is faster than numpy, measured

Read = Callable[[int, int], bytes]
"""(offset, length) -> that part of the run; shorter when the run ends before."""


class Builder:
    """Turns sorted records that come in stretches into the bytes of a run. `seed` is 16 random bytes, new each time."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._weights = blocks.weights(seed)
        self._firsts = bytearray()
        self._filters = bytearray()
        self._rest = _no_records()
        self._blocks = 0
        self._records = 0

    def add(self, records: Records) -> NDArray[np.uint64]:
        """Bytes to write next. `records` are sorted, unique, and above all that were added before."""
        self._records += len(records)
        joined = _join([self._rest, records]) if len(self._rest) else records
        whole = len(joined) // BLOCK_RECORDS * BLOCK_RECORDS
        self._rest = _copy(joined, whole, len(joined))
        return self._encode(_part(joined, 0, whole))

    def finish(self) -> list[Buffer]:
        """The last parts of the run: unfinished block, tables, footer. Use once."""
        last = self._encode(self._rest).tobytes()
        first_digest, filter_digest = sha256(self._firsts)[:16], sha256(self._filters)[:16]
        footer = Footer(self._seed, self._records, self._blocks, first_digest, filter_digest)
        return [last, self._firsts, self._filters, footer.pack()]  # not joined: they can be tens of MiB

    def _encode(self, records: Records) -> NDArray[np.uint64]:
        words = blocks.encode(records, self._blocks, self._weights)
        if len(words):
            self._firsts += words[:, 0].tobytes()
            self._filters += blocks.filters(words).tobytes()
            self._blocks += len(words)
        return words


class Run:
    """A run that can be searched. Keeps 8 bytes a block in memory, and the filters (64 more) when they were loaded.

    Every method raises Tampered as soon as bytes are not what was written; the run must not be used afterwards.
    """

    def __init__(self, read: Read, size_bytes: int) -> None:
        start = max(0, size_bytes - blocks.FOOTER_BYTES)
        footer = blocks.read_footer(read(start, blocks.FOOTER_BYTES), size_bytes)
        self._read = read
        self._footer = footer
        self._weights = blocks.weights(footer.seed)
        firsts = read(footer.blocks * BLOCK_BYTES, footer.blocks * blocks.FIRST_BYTES)
        if sha256(firsts)[:16] != footer.firsts_digest:
            raise blocks.damaged("the table of blocks does not match its checksum")
        self._firsts = np.frombuffer(firsts, dtype="<u8")
        self._plain_firsts = memoryview(firsts).cast("Q")  # the same memory, for plain Python
        self._filters: NDArray[np.uint8] | None = None
        self._plain_filters: bytes | None = None

    @property
    def records(self) -> int:
        """How many there are."""
        return self._footer.records

    @property
    def blocks(self) -> int:
        """How many pages they fill."""
        return self._footer.blocks

    @property
    def filter_bytes(self) -> int:
        """Memory that the filters take, or would take."""
        return self._footer.blocks * blocks.FILTER_BYTES

    @property
    def filtered(self) -> bool:
        """Whether the filters are in memory."""
        return self._filters is not None

    def load_filters(self) -> None:
        """Bring the filters into memory: an unknown id then mostly costs no read."""
        start = self._footer.blocks * (BLOCK_BYTES + blocks.FIRST_BYTES)
        data = self._read(start, self.filter_bytes)
        if sha256(data)[:16] != self._footer.filters_digest:
            raise blocks.damaged("the filters do not match their checksum")
        self._plain_filters = data
        self._filters = np.frombuffer(data, dtype=np.uint8).reshape(-1, blocks.FILTER_BYTES)

    def forget_filters(self) -> None:
        """Give their memory back."""
        self._filters = self._plain_filters = None

    def find(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The references of ids, -1 where unknown. Fastest when the ids are sorted by their first half."""
        if len(high) <= FEW:
            pairs = zip(high.tolist(), low.tolist(), strict=True)
            return np.array([self._find_one(*pair) for pair in pairs], dtype=np.int64)
        found = np.full(len(high), -1, dtype=np.int64)
        place = np.searchsorted(self._firsts, high, side="right").astype(np.int64) - 1
        pending = np.flatnonzero(place >= 0)
        while pending.size:
            at = place[pending]
            looked = pending
            if self._filters is not None:
                looked = pending[blocks.may_hold(self._filters, at, low[pending])]
            if looked.size:
                found[looked] = self._look(place[looked], high[looked], low[looked])
            # Ids that share their first half can straddle two blocks (about never, but then it must work too).
            before = (found[pending] < 0) & (at > 0) & (self._firsts[at] == high[pending])
            pending = pending[before]
            place[pending] -= 1
        return found

    def part(self, first: int, count: int) -> Records:
        """The records of blocks `first` up to `first + count`, in order."""
        count = min(count, self._footer.blocks - first)
        numbers = np.arange(first, first + count, dtype=np.int64)
        words = blocks.decode(self._read(first * BLOCK_BYTES, count * BLOCK_BYTES), numbers, self._weights)
        size = min(count * BLOCK_RECORDS, self._footer.records - first * BLOCK_RECORDS)
        return _part(Records(blocks.highs(words), blocks.lows(words), blocks.references(words)), 0, size)

    def _find_one(self, high: int, low: int) -> int:
        """As `find`; for a few ids this is ten times faster than setting up numpy."""
        number = bisect_right(self._plain_firsts, high) - 1
        while number >= 0:
            if self._plain_filters is None or blocks.may_hold_one(self._plain_filters, number, low):
                data = self._read(number * BLOCK_BYTES, BLOCK_BYTES)
                blocks.decode(data, np.array([number]), self._weights)
                words = memoryview(data).cast("Q")
                at = bisect_left(words, high, 0, BLOCK_RECORDS)
                while at < BLOCK_RECORDS and words[at] == high:
                    if words[at + BLOCK_RECORDS] == low:
                        return int(np.uint64(words[at + 2 * BLOCK_RECORDS]).astype(np.int64))
                    at += 1
            if self._plain_firsts[number] != high:
                break
            number -= 1  # see `find`
        return -1

    def _look(
        self, place: NDArray[np.int64], high: NDArray[np.uint64], low: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """The references of ids that can only be in block `place`."""
        numbers = np.unique(place)
        data = b"".join([self._read(number * BLOCK_BYTES, BLOCK_BYTES) for number in numbers.tolist()])
        words = blocks.decode(data, numbers, self._weights)
        highs = blocks.highs(words)  # sorted as a whole, because the blocks are
        found = np.full(len(high), -1, dtype=np.int64)
        at = np.searchsorted(highs, high).astype(np.int64)
        pending = np.flatnonzero(at < len(highs))
        while pending.size:
            where = at[pending]
            alike = highs[where] == high[pending]
            block, slot = where // BLOCK_RECORDS, where % BLOCK_RECORDS
            same = alike & (words[block, slot + BLOCK_RECORDS] == low[pending])
            found[pending[same]] = words[block[same], slot[same] + 2 * BLOCK_RECORDS].view(np.int64)
            pending = pending[alike & ~same]  # the next one may have the same first half
            at[pending] += 1
            pending = pending[at[pending] < len(highs)]
        return found


def _no_records() -> Records:
    return Records(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.int64))


def _join(parts: list[Records]) -> Records:
    return Records(
        np.concatenate([part.high for part in parts]),
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.references for part in parts]),
    )


def _part(records: Records, start: int, end: int) -> Records:
    return Records(records.high[start:end], records.low[start:end], records.references[start:end])


def _copy(records: Records, start: int, end: int) -> Records:
    part = _part(records, start, end)  # copied, so that the whole stretch is not kept alive
    return Records(part.high.copy(), part.low.copy(), part.references.copy())
