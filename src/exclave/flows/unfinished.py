"""Half-restored registers: marked while they are written, so that the next activation may remove them itself.

The mark stands beside the register's folder from before the first byte until its content is proved and checked, and is
gone before anything is started there. So what is marked was made by an activation, is not whole, and serves nobody.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from exclave.errors import Refused, Tampered


def refuse_taken(place: Path) -> None:
    """Raises Refused("place-taken") when `place` holds anything but what an activation left half restored."""
    if place.exists() and any(place.iterdir()) and not _half_restored(place):
        raise Refused(
            "place-taken",
            f"{place} is not empty",
            why="something was restored or put there before, and nothing is overwritten",
            hint=f"exclave activate --stop, then move {place} away",
        )


@contextmanager
def marked(place: Path) -> Generator[None]:
    """`place` counts as half restored until the block ends well. What was half restored there is removed first.

    Bytes that are not what was sealed lose the mark too: they are evidence, and stay until a person moves them.
    """
    refuse_taken(place)
    note = mark(place)
    if _half_restored(place):
        _remove(place)
    place.mkdir(mode=0o700, exist_ok=True)
    note.write_text(f"{place.stat().st_ino}\n", encoding="ascii")
    _sync(note.parent)
    try:
        yield
    except Tampered:
        note.unlink()
        raise
    note.unlink()
    _sync(note.parent)


def mark(place: Path) -> Path:
    """The file that says, by inode number, that the folder at `place` is half restored."""
    return place.with_name(f".{place.name}.unfinished")


def _half_restored(place: Path) -> bool:
    """Not so when another folder has come to stand there since."""
    try:
        return mark(place).read_text(encoding="ascii").strip() == str(place.stat().st_ino)
    except FileNotFoundError:
        return False


def _remove(place: Path) -> None:
    """Also folders that were restored as ones which their owner may not write to."""
    place.chmod(0o700)
    for folder, names, _files in os.walk(place):
        for path in (os.path.join(folder, name) for name in names):
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(place)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
