"""Running a generator a few steps ahead in its own thread: reading goes on while sealing works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")
_END = object()


@contextmanager
def ahead(items: Iterator[_Item], depth: int) -> Generator[Iterator[_Item]]:
    """The same items in the same order, made up to `depth` ahead in a thread; its exceptions come out here.

    The source must not depend on the reader for anything but the queue (slab pools are larger than `depth`, or the
    source waits for a slab that the reader gives back). On leaving early the source is stopped at its next item.
    """
    handed: queue.Queue[object] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                handed.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in items:
                if not put(item):
                    return
            put(_END)
        except BaseException as error:  # noqa: BLE001 - carried over to the reader's thread, not handled here
            put(_Raised(error))

    def read() -> Iterator[_Item]:
        while (item := handed.get()) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item  # type: ignore[misc]  # only items of the source are put beside the two markers

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
