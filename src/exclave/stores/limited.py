"""Wrapper that keeps a store's traffic under a rate, so that a backup does not fill the line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from exclave.stores.base import Listed, Store
from exclave.types import Buffer


class Limited:
    """Content in both directions stays under `bytes_per_second` on average.

    Works by object: each goes at full speed and the next waits until the average is met again, so the line sees
    bursts of one object. Listings and sizes are not counted.
    """

    def __init__(
        self,
        store: Store,
        bytes_per_second: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if bytes_per_second <= 0:
            raise ValueError("a rate is above zero")
        self.inner = store
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = clock()

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        self._wait_turn(memoryview(data).nbytes)
        self.inner.put(name, data)

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`. What it read is known afterwards, so the next one waits for it."""
        self._wait_turn(0)
        data = self.inner.get(name, limit=limit)
        self._charge(len(data))
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        self._wait_turn(length)
        return self.inner.get_range(name, start, length)

    def size(self, name: str) -> int:
        """See `Store.size`."""
        return self.inner.size(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        return self.inner.list(prefix, after=after)

    def _wait_turn(self, nbytes: int) -> None:
        pause = self._charge(nbytes)
        if pause > 0:
            self._sleep(pause)

    def _charge(self, nbytes: int) -> float:
        """Reserve the line for `nbytes`; gives the seconds until that reservation begins."""
        with self._lock:
            now = self._clock()
            begins = max(now, self._free_at)
            self._free_at = begins + nbytes / self._rate
            return begins - now
