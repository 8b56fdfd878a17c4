"""Joining runs in bounded memory, and which of them to join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exclave.sealed.index.blocks import Records, sort

if TYPE_CHECKING:
    from exclave.sealed.index.runs import Run

STEP_BLOCKS = 1024  # read from all runs together, per step: 4 MiB
MAX_RUNS = 8


def newest_to_join(sizes: Sequence[int]) -> int:
    """How many of the newest runs to join into one; 0 for none. `sizes` in records, oldest first.

    As long as the next older run is no bigger than what is being joined anyway, it joins too: a record is then
    rewritten about log2(records / smallest run) times, and the number of runs stays at MAX_RUNS or below.
    """
    if len(sizes) <= MAX_RUNS:
        return 0
    count, total = 1, sizes[-1]
    while count < len(sizes) and (sizes[-count - 1] <= total or len(sizes) - count + 1 > MAX_RUNS):
        total += sizes[-count - 1]
        count += 1
    return count


def merge(runs: Sequence[Run]) -> Iterator[Records]:
    """All records of `runs` (oldest first) in sorted stretches; of equal ids the newest stays.

    Reads every run once from start to end. Raises Tampered when one of them is damaged.
    """
    step = max(1, STEP_BLOCKS // max(1, len(runs)))
    cursors = [_Cursor(run, step) for run in runs]
    while True:
        live = [cursor for cursor in cursors if cursor.fill()]
        if not live:
            return
        # Up to here nothing smaller can come any more: the smallest of the last ids that were read.
        bound = min((cursor.last() for cursor in live if not cursor.at_end), default=None)
        taken = [cursor.take(bound) for cursor in live]
        yield sort(
            Records(
                np.concatenate([part.high for part in taken]),
                np.concatenate([part.low for part in taken]),
                np.concatenate([part.references for part in taken]),
            )
        )


class _Cursor:
    """Where in a run the merge is; holds one stretch of its records."""

    def __init__(self, run: Run, step: int) -> None:
        self._run = run
        self._step = step
        self._next_block = 0
        self._held: Records | None = None
        self._start = 0

    @property
    def at_end(self) -> bool:
        """Whether all that the run has is held or was taken."""
        return self._next_block >= self._run.blocks

    def fill(self) -> bool:
        """Hold something; False when the run is used up."""
        if self._held is not None and self._start < len(self._held):
            return True
        if self.at_end:
            self._held = None
            return False
        self._held = self._run.part(self._next_block, self._step)
        self._next_block += self._step
        self._start = 0
        return True

    def last(self) -> tuple[int, int]:
        """The greatest id that is held."""
        assert self._held is not None
        return int(self._held.high[-1]), int(self._held.low[-1])

    def take(self, bound: tuple[int, int] | None) -> Records:
        """Everything held up to and including `bound` (None: everything)."""
        held = self._held
        assert held is not None
        end = len(held)
        if bound is not None:
            high, low = np.uint64(bound[0]), np.uint64(bound[1])
            first = int(np.searchsorted(held.high, high, side="left"))
            past = int(np.searchsorted(held.high, high, side="right"))
            end = max(self._start, first + int(np.searchsorted(held.low[first:past], low, side="right")))
        start, self._start = self._start, end
        return Records(held.high[start:end], held.low[start:end], held.references[start:end])
