"""The rows of every folder of a data directory, gathered while a backup arrives, told as listings at its end."""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from exclave.listing import MODE, MTIME, NO_CONTENT, ROOT, SIZE, STATS, Extra, Listing

_FOLDER_MODE = 0o700
_SECOND = 1_000_000_000


@dataclass(slots=True)
class _Rows:
    names: list[bytes] = field(default_factory=list[bytes])
    numbers: array[int] = field(default_factory=lambda: array("q"))  # mode, size, mtime, content, page bytes
    extras: dict[int, Extra] = field(default_factory=dict[int, Extra])


class Tree:
    """Folders and files by path; parents that were not told are made, with mode 0700."""

    def __init__(self, *, mtime_seconds: int) -> None:
        self._mtime = mtime_seconds
        self._folders: dict[bytes, _Rows] = {b"": _Rows()}
        self._add(b"", ROOT, stat.S_IFDIR | _FOLDER_MODE, 0, mtime_seconds, NO_CONTENT, 0)

    def folder(self, path: bytes, *, mode: int = _FOLDER_MODE, mtime_seconds: int | None = None) -> None:
        """A folder; telling it again changes nothing."""
        if path in self._folders:
            return
        parent, _, name = path.rpartition(b"/")
        self.folder(parent)
        self._folders[path] = _Rows()
        mtime = self._mtime if mtime_seconds is None else mtime_seconds
        self._add(parent, name, stat.S_IFDIR | mode, 0, mtime, NO_CONTENT, 0)

    def file(
        self, path: bytes, *, mode: int, size: int, mtime_seconds: int, content: int, page_bytes: int
    ) -> None:
        """A regular file whose content was carried under the ordinal `content`."""
        parent, _, name = path.rpartition(b"/")
        self.folder(parent)
        self._add(parent, name, stat.S_IFREG | mode, size, mtime_seconds, content, page_bytes)

    def link(self, path: bytes, *, target: bytes, mtime_seconds: int) -> None:
        """A symbolic link."""
        parent, _, name = path.rpartition(b"/")
        self.folder(parent)
        rows = self._folders[parent]
        rows.extras[len(rows.names)] = Extra(target=target)
        self._add(parent, name, stat.S_IFLNK | 0o777, 0, mtime_seconds, NO_CONTENT, 0)

    def listings(self) -> Iterator[Listing]:
        """Every folder once, complete, names sorted. Owner 0; no change time, inode or device."""
        for path, rows in sorted(self._folders.items()):
            order = sorted(range(len(rows.names)), key=rows.names.__getitem__)
            numbers = np.frombuffer(rows.numbers, dtype=np.int64).reshape(-1, 5)[order]
            stats = np.zeros((len(order), STATS), dtype=np.int64)
            stats[:, MODE], stats[:, SIZE], stats[:, MTIME] = numbers[:, 0], numbers[:, 1], numbers[:, 2]
            place = {row: new for new, row in enumerate(order)}
            yield Listing(
                path=path,
                names=[rows.names[row] for row in order],
                stats=stats,
                content=numbers[:, 3].copy(),
                page_bytes=numbers[:, 4].astype(np.int32),
                extras={place[row]: extra for row, extra in rows.extras.items()},
            )

    def _add(
        self,
        parent: bytes,
        name: bytes,
        mode: int,
        size: int,
        mtime_seconds: int,
        content: int,
        page_bytes: int,
    ) -> None:
        rows = self._folders[parent]
        rows.names.append(name)
        rows.numbers.extend((mode, size, mtime_seconds * _SECOND, content, page_bytes))
