"""Running a generator a few steps ahead in its own thread: reading goes on while sealing works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")
GATHERED = 256


@contextmanager
def ahead(
    items: Iterator[_Item], depth: int, *, heavy: Callable[[_Item], bool] = lambda _: True
) -> Generator[Iterator[_Item]]:
    """The same items in the same order, made up to `depth` ahead in a thread; its exceptions come out here.

    Items that are not `heavy` are handed over together with the next heavy one, or at most GATHERED at a time:
    waking the reader costs more than a light item does. The source must not depend on the reader for anything but
    the queue (slab pools are larger than `depth`, or the source waits for a slab that the reader gives back). On
    leaving early the source is stopped at its next hand-over.
    """
    handed: queue.Queue[list[_Item] | _Raised | None] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(batch: list[_Item] | _Raised | None) -> bool:
        while not stopped.is_set():
            try:
                handed.put(batch, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        batch: list[_Item] = []
        try:
            for item in items:
                batch.append(item)
                if heavy(item) or len(batch) >= GATHERED:
                    if not put(batch):
                        return
                    batch = []
            put(batch)
            put(None)
        except BaseException as error:  # noqa: BLE001 - carried over to the reader's thread, not handled here
            put(batch)
            put(_Raised(error))

    def read() -> Iterator[_Item]:
        while (batch := handed.get()) is not None:
            if isinstance(batch, _Raised):
                raise batch.error
            yield from batch

    thread = threading.Thread(target=run, name="ahead", daemon=True)
    thread.start()
    try:
        yield read()
    finally:
        stopped.set()
        thread.join(timeout=60)


class _Raised:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
