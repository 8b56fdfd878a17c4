"""Takes a base backup's stream apart: slabs while it arrives, then one listing for each folder."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from exclave.errors import Tampered
from exclave.listing import Listing
from exclave.registers.base import Told
from exclave.registers.postgres.connection import Session
from exclave.registers.postgres.slabbing import Slabber
from exclave.registers.postgres.streaming import (
    Archive,
    Manifest,
    Started,
    Stopped,
    Tablespace,
    Wire,
    base_backup,
)
from exclave.registers.postgres.tar import Member, TarReader
from exclave.registers.postgres.tree import Tree
from exclave.registers.slabs import Slab, SlabPool

_RELATION = re.compile(
    rb"(?:base/\d+|global|pg_tblspc/\d+/PG_\d+_\d+/\d+)/(?:t\d+_)?\d+(?:_(?:fsm|vm|init))?(?:\.\d+)?"
)
_TOLD_BYTES = 4 << 20
_MEBIBYTE = 1 << 20
_SECOND = 1_000_000_000


class Backup:
    """The events of one base backup over `wire`."""

    def __init__(self, wire: Session | Wire, slabs: SlabPool, *, block_bytes: int) -> None:
        self._wire = wire
        self._block_bytes = block_bytes
        self._slabber = Slabber(slabs)
        self._tree = Tree(mtime_seconds=0)
        self._files = self._bytes = self._untold = 0
        self.tablespaces: tuple[Tablespace, ...] = ()
        self.stopped: Stopped | None = None

    def slabs(self, told: Told) -> Iterator[Slab]:
        """Content as it arrives, to the end of the backup. Raises what the session raises."""
        began = time.time_ns() // _SECOND
        self._tree = Tree(mtime_seconds=began)
        into: _Unpacking | _Single | None = None
        for part in base_backup(self._wire, "exclave"):
            if isinstance(part, memoryview):
                if into is None:
                    raise _out_of_order()
                yield from into.feed(part)
                self._untold += len(part)
                if self._untold >= _TOLD_BYTES:
                    self._tell(told)
                continue
            if into is not None and not isinstance(part, Started):
                into.finish()
                into = None
            if isinstance(part, Started):
                self.tablespaces = part.tablespaces
            elif isinstance(part, Archive):
                into = _Unpacking(self, b"pg_tblspc/%d/" % part.oid if part.oid else b"")
            elif isinstance(part, Manifest):
                into = _Single(self, b"backup_manifest", began)
                yield from self._slabber.begin(b"backup_manifest", None)
            else:
                self.stopped = part
        yield from self._slabber.flush()
        self._tell(told)

    def listings(self) -> Iterator[Listing]:
        """Every folder, after `slabs`."""
        yield from self._tree.listings()

    def abandon(self) -> None:
        """Give back what is held; harmless after a complete reading."""
        self._slabber.abandon()

    def _tell(self, told: Told) -> None:
        self._bytes += self._untold
        self._untold = 0
        told(self._files, self._bytes)

    def page_bytes_of(self, path: bytes, size: int) -> int:
        """The page size for the main and other forks of relations, 0 for other files and torn ends."""
        whole = size and size % self._block_bytes == 0 and _MEBIBYTE % self._block_bytes == 0
        return self._block_bytes if whole and _RELATION.fullmatch(path) else 0

    @property
    def slabber(self) -> Slabber:
        """Where content goes."""
        return self._slabber

    @property
    def tree(self) -> Tree:
        """Where rows go."""
        return self._tree

    def count(self) -> None:
        """One more file is complete."""
        self._files += 1


class _Unpacking:
    """Takes one tar archive apart; its entries stand under `prefix`."""

    def __init__(self, backup: Backup, prefix: bytes) -> None:
        self._backup = backup
        self._prefix = prefix
        self._tar = TarReader()
        self._member: Member | None = None
        self._path = b""
        self._page_bytes = self._left = 0
        if prefix:
            backup.tree.folder(prefix.rstrip(b"/"))

    def feed(self, data: memoryview) -> Iterator[Slab]:
        for item in self._tar.feed(data):
            if isinstance(item, Member):
                yield from self._entry(item)
            else:
                yield from self._backup.slabber.write(item)
                self._left -= len(item)
                if not self._left:
                    self._file_ends()

    def finish(self) -> None:
        self._tar.finish()

    def _entry(self, member: Member) -> Iterator[Slab]:
        path = self._path = self._prefix + member.name
        if member.kind == "folder":
            self._backup.tree.folder(path, mode=member.mode, mtime_seconds=member.mtime_seconds)
        elif member.kind == "link":
            self._backup.tree.link(path, target=member.target, mtime_seconds=member.mtime_seconds)
        else:
            self._member, self._left = member, member.size
            self._page_bytes = self._backup.page_bytes_of(path, member.size)
            yield from self._backup.slabber.begin(path, member.size, page_bytes=self._page_bytes)
            if not member.size:
                self._file_ends()

    def _file_ends(self) -> None:
        member = self._member
        if member is None:
            raise _out_of_order()
        self._backup.tree.file(
            self._path,
            mode=member.mode,
            size=member.size,
            mtime_seconds=member.mtime_seconds,
            content=self._backup.slabber.end(),
            page_bytes=self._page_bytes,
        )
        self._backup.count()


class _Single:
    """Takes a stream that is one file."""

    def __init__(self, backup: Backup, path: bytes, mtime_seconds: int) -> None:
        self._backup = backup
        self._path = path
        self._mtime_seconds = mtime_seconds
        self._size = 0

    def feed(self, data: memoryview) -> Iterator[Slab]:
        self._size += len(data)
        return self._backup.slabber.write(data)

    def finish(self) -> None:
        self._backup.tree.file(
            self._path,
            mode=0o600,
            size=self._size,
            mtime_seconds=self._mtime_seconds,
            content=self._backup.slabber.end(),
            page_bytes=0,
        )
        self._backup.count()


def _out_of_order() -> Tampered:
    return Tampered(
        "backup-stream-malformed",
        "The server's base backup cannot be read",
        why="content comes before what it is of",
        hint="exclave doctor",
    )
