"""The plan of a restore: which part of which pack goes where, ordered so that every pack is read once. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from exclave.errors import Tampered
from exclave.sealed.folders import Folder, Ints
from exclave.sealed.packing import Contents
from exclave.sealed.packstream import SLOT_BITS


@dataclass(slots=True)
class Plan:
    """Runs to write, gathered folder by folder, then read in the order of packs and slots."""

    _columns: list[tuple[Ints, Ints, Ints, Ints, Ints]] = field(
        default_factory=list[tuple[Ints, Ints, Ints, Ints, Ints]]
    )

    def add(self, folder: Folder, files: Ints) -> None:
        """All runs of a folder; `files` has the builder's file number of each row (-1: not wanted)."""
        rows = np.repeat(np.arange(len(folder.names)), folder.run_counts)
        wanted = files[rows] >= 0
        if not wanted.any():
            return
        rows = rows[wanted]
        pages = folder.page_bytes[rows]
        offsets = folder.run_ats[wanted] * np.where(pages > 0, pages, 1)
        self._columns.append((folder.run_refs[wanted], folder.run_lens[wanted], files[rows], offsets, pages))

    def packs(self) -> list[int]:
        """The numbers of all packs that `by_pack` will give, in its order."""
        if not self._columns:
            return []
        return [
            int(number)
            for number in np.unique(np.concatenate([column[0] for column in self._columns]) >> SLOT_BITS)
        ]

    def by_pack(self) -> Iterator[tuple[int, list[Run]]]:
        """Pack numbers, ascending, each with its runs in order of slots."""
        if not self._columns:
            return
        refs, lens, files, offsets, pages = (
            np.concatenate(column) for column in zip(*self._columns, strict=True)
        )
        order = np.lexsort((offsets, refs))
        packs = refs[order] >> SLOT_BITS
        starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(np.diff(packs)) + 1, [len(order)]])
        slots = (refs & ((1 << SLOT_BITS) - 1))[order]
        lens, files, offsets, pages = lens[order], files[order], offsets[order], pages[order]
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            part = slice(first, last)
            rows = zip(
                slots[part].tolist(), lens[part].tolist(), files[part].tolist(), offsets[part].tolist(),
                pages[part].tolist(), strict=True,
            )  # fmt: skip
            yield int(packs[first]), [Run(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive slots of one pack that belong in one file, one after the other, from `offset` of its content on."""

    slot: int
    count: int
    file: int
    offset: int
    page_bytes: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A contiguous part of one frame for one file. `cuts` are the chunk boundaries in it: `count` + 1 ends, from 0."""

    frame: int
    start: int
    stop: int
    file: int
    offset: int
    paged: bool
    cuts: list[int]


def pieces(runs: list[Run], contents: Contents) -> list[Piece]:
    """The runs of one pack (ascending by slot) as pieces of its frames, in order of frames. Raises Tampered."""
    firsts, starts, lengths = contents.firsts.tolist(), contents.starts.tolist(), contents.slots.tolist()
    found: list[Piece] = []
    for run in runs:
        slot, end, offset = run.slot, run.slot + run.count, run.offset
        if end > len(lengths):
            raise Tampered(
                "manifest-invalid",
                "A snapshot refers to chunks that its packs do not have",
                why="manifest and pack do not belong together",
                hint="exclave verify",
            )
        while slot < end:
            frame = bisect_right(firsts, slot) - 1
            after = min(end, firsts[frame + 1] if frame + 1 < len(firsts) else len(lengths))
            cuts = [0, *accumulate(lengths[slot:after])]
            start = starts[slot]
            found.append(Piece(frame, start, start + cuts[-1], run.file, offset, run.page_bytes > 0, cuts))
            slot, offset = after, offset + cuts[-1]
    return sorted(found, key=_frame)


def _frame(piece: Piece) -> int:
    return piece.frame
