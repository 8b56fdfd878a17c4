"""Stores that misbehave: slow, failing, hanging, lying in every way that `stores.probe` has to see through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from exclave.errors import Unreachable
from exclave.stores.base import Listed, Store
from exclave.stores.memory import MemoryStore
from exclave.types import Buffer


class Troubled:
    """A store that can be switched off, slowed down or made to hang, while it is used."""

    def __init__(self, store: Store | None = None) -> None:
        self.inner: Store = store if store is not None else MemoryStore()
        self.down = False
        self.seconds_per_put = 0.0
        self.fail_after_puts: int | None = None  # fails from then on
        self.running = threading.Event()  # cleared: puts hang
        self.running.set()
        self.calls = 0

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        self.running.wait()
        time.sleep(self.seconds_per_put)
        if self.fail_after_puts is not None:
            if self.fail_after_puts == 0:
                self.down = True
            self.fail_after_puts -= 1
        self._answer()
        self.inner.put(name, data)

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        self._answer()
        return self.inner.get(name, limit=limit)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        self._answer()
        return self.inner.get_range(name, start, length)

    def size(self, name: str) -> int:
        """See `Store.size`."""
        self._answer()
        return self.inner.size(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        self._answer()
        yield from self.inner.list(prefix, after=after)

    def _answer(self) -> None:
        self.calls += 1
        if self.down:
            raise Unreachable("store-unreachable", "the site is dark", why="switched off")


class Liar(MemoryStore):
    """A store that keeps every promise but those named in `lies`.

    - `overwrites`: a second create replaces the object
    - `accepts`: a second create is accepted and dropped
    - `refuses-and-overwrites`: it is refused, and yet the object is another one
    - `ranges-from-start`, `ranges-whole`, `ranges-shifted`: ranged reads give other bytes
    - `lists-late`, `lists-empty`: a new object is not listed, or with no bytes
    - `lists-everything`: the listing ignores where it should begin
    - `lock-deletes`: says that it refused to delete, and deleted; `lock-admits`: says that it deleted
    - `loses`: acknowledges and keeps nothing
    """

    def __init__(self, *lies: str) -> None:
        super().__init__()
        self._lies = frozenset(lies)

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        taken = name in self._objects and self._objects[name] != bytes(data)
        if taken and self._lies & {"overwrites", "refuses-and-overwrites"}:
            del self._objects[name]
            super().put(name, data)
            if "overwrites" in self._lies:
                return
            data = b"refused"
        if (taken and "accepts" in self._lies) or "loses" in self._lies:
            return
        super().put(name, data)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        whole = self.get(name, limit=1 << 40)
        if "ranges-whole" in self._lies:
            return whole
        if "ranges-from-start" in self._lies:
            return whole[:length]
        if "ranges-shifted" in self._lies:
            return whole[start + 1 : start + 1 + length]
        return super().get_range(name, start, length)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        if "lists-late" in self._lies:
            return
        everything = "lists-everything" in self._lies
        for row in super().list("" if everything else prefix, after="" if everything else after):
            yield Listed(row.name, 0) if "lists-empty" in self._lies else row

    def break_lock(self, name: str) -> str:
        """See `stores.probe.Breakable`: a lock that holds, but for the lies."""
        if "lock-deletes" in self._lies:
            del self._objects[name]
        return "the store said that it deleted the object" if "lock-admits" in self._lies else ""


class Interfering:
    """Calls `meddle` with the name before each put: to act at the worst moment."""

    def __init__(self, inner: Store, meddle: Callable[[str], None]) -> None:
        self.inner = inner
        self._meddle = meddle

    def put(self, name: str, data: Buffer) -> None:
        """See `Store.put`."""
        self._meddle(name)
        self.inner.put(name, data)

    def get(self, name: str, *, limit: int) -> bytes:
        """See `Store.get`."""
        return self.inner.get(name, limit=limit)

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """See `Store.get_range`."""
        return self.inner.get_range(name, start, length)

    def size(self, name: str) -> int:
        """See `Store.size`."""
        return self.inner.size(name)

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """See `Store.list`."""
        return self.inner.list(prefix, after=after)


def tamper(store: Troubled, path: str, data: bytes | None) -> None:
    """Replace or remove an object as somebody with the host's powers would; the store has no such verb."""
    held = {row.name: store.inner.get(row.name, limit=row.size) for row in store.inner.list("")}
    held.pop(path, None)
    if data is not None:
        held[path] = data
    store.inner = MemoryStore()
    for name, content in held.items():
        store.inner.put(name, content)
