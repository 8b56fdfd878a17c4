"""Store in memory: the smallest complete adapter, for tests and rehearsals."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from exclave.stores import naming, refusals
from exclave.stores.base import Listed
from exclave.types import Buffer


class MemoryStore:
    """Objects in a dictionary; gone with the process."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`; durable as long as the process lives."""
        naming.parts(name)
        copy = bytes(data)
        with self._lock:
            if self._objects.setdefault(name, copy) != copy:
                raise refusals.conflict(name)

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        data = self._found(name)
        if len(data) > limit:
            raise refusals.too_long(name, len(data), limit)
        return data

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        data = self._found(name)
        if start + length > len(data):
            raise refusals.too_short(name, len(data), start + length)
        return data[start : start + length]

    def size(self, name: str) -> int:
        """See `Store.size`."""
        return len(self._found(name))

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        naming.folder(prefix)
        with self._lock:
            rows = [Listed(n, len(d)) for n, d in self._objects.items() if n.startswith(prefix) and n > after]
        yield from sorted(rows)

    def _found(self, name: str) -> bytes:
        naming.parts(name)
        with self._lock:
            data = self._objects.get(name)
        if data is None:
            raise refusals.missing(name)
        return data
