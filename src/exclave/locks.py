"""One process at a time: an advisory lock on a file, released by the kernel however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from exclave import homedisk
from exclave.errors import Busy


@contextmanager
def exclusive(path: Path, *, what: str) -> Generator[None]:
    """Hold the lock at `path` (made when missing). Raises Busy at once when another process holds it."""
    with homedisk.usable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(
                "already-running",
                f"Another process is {what}",
                why="two at once would only do the same work twice",
                hint="wait for it, or look for it with: pgrep -af exclave",
            ) from error
        yield
    finally:
        os.close(descriptor)
