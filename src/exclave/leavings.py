"""Folders with readable copies: gone when their work ends, and also when the process leaves in its midst."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path

_TRIES = 10  # a thread may make a file in a folder that is just being removed
_lock = threading.Lock()
_folders = set[Path]()


def make(parent: Path, prefix: str) -> Path:
    """A new private folder, to be given back with `remove`. Raises OSError."""
    with _lock:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        _folders.add(folder)
    return folder


def remove(folder: Path) -> None:
    """Its work is over."""
    shutil.rmtree(folder, ignore_errors=True)
    with _lock:
        _folders.discard(folder)


def remove_all() -> None:
    """The process leaves without waiting for its threads: whatever they keep goes, and they get no new folder.

    Only for the last thing that a process does: a later `make` waits for ever.
    """
    _lock.acquire(
        timeout=1
    )  # whoever holds it makes one folder; it may be this very thread, interrupted doing so
    for _ in range(_TRIES):
        for folder in list(_folders):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                _folders.discard(folder)
        if not _folders:
            return
