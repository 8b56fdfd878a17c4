"""Wrapper that tries again, ever less often, while a store does not answer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from exclave.errors import Unreachable
from exclave.stores.base import Listed, Store
from exclave.types import Buffer

T = TypeVar("T")


class Retrying:
    """Retries only Unreachable; everything else is an answer.

    Pauses double from `first_seconds` to `longest_seconds`, each cut by chance to between half and the whole of
    itself, so that many clients of a store that comes back do not knock together. Gives up after `attempts`, or
    when the next pause would end later than `patience_seconds` after the first failure; the last error is raised.
    """

    def __init__(
        self,
        store: Store,
        *,
        attempts: int = 6,
        first_seconds: float = 0.25,
        longest_seconds: float = 15.0,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.inner = store
        self._attempts = attempts
        self._first = first_seconds
        self._longest = longest_seconds
        self._patience = patience_seconds
        self._clock = clock
        self._sleep = sleep
        self._chance = chance

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`. Safe to repeat: the same bytes under the same name are fine."""
        self._again(lambda: self.inner.put(name, data))

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        return self._again(lambda: self.inner.get(name, limit=limit))

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        return self._again(lambda: self.inner.get_range(name, start, length))

    def size(self, name: str) -> int:
        """See `Store.size`."""
        return self._again(lambda: self.inner.size(name))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`. Goes on behind the last name told, so nothing is told twice."""
        pauses = self._pauses()
        while True:
            try:
                for row in self.inner.list(prefix, after=after):
                    after = row.name
                    pauses = self._pauses()
                    yield row
            except Unreachable:
                pause = next(pauses, None)
                if pause is None:
                    raise
                self._sleep(pause)
            else:
                return

    def _again(self, act: Callable[[], T]) -> T:
        pauses = self._pauses()
        while True:
            try:
                return act()
            except Unreachable:
                pause = next(pauses, None)
                if pause is None:
                    raise
                self._sleep(pause)

    def _pauses(self) -> Iterator[float]:
        began: float | None = None
        longest = self._first
        for _ in range(self._attempts - 1):
            now = self._clock()
            began = now if began is None else began
            pause = longest * (0.5 + 0.5 * self._chance())
            if now + pause > began + self._patience:
                return
            yield pause
            longest = min(2 * longest, self._longest)
