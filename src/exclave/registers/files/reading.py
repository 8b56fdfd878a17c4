"""Reads regular files into slabs: small ones many to a slab, long ones over several, each as it was at one moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from enum import Enum

from exclave.listing import CTIME, DEVICE, INODE, MTIME, SIZE, UID, Extra
from exclave.registers.files.attributes import Attributes, data_extents
from exclave.registers.files.filling import Extents, Filler, fill, pieces, shortened
from exclave.registers.files.walking import BLOCKS, Scan
from exclave.registers.slabs import SLAB_BYTES, START, Slab, SlabPool

WHOLE_BYTES = 1 << 20  # files up to this come as one span
ATTEMPTS = 3  # readings of a file that changes while it is read
_BLOCK_BYTES = 512  # unit of st_blocks, whatever the file system
_FLAGS = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
)  # a FIFO put in a file's place must not stop us
_COLD_BYTES = 64 << 20  # longer files that nobody has in memory are dropped from it again after reading


class Outcome(Enum):
    """How reading a file ended."""

    STEADY = "as it was at one moment"
    UNSTEADY = "changed while it was read"
    VANISHED = "vanished"
    OTHER_KIND = "turned into something else while it was read"
    FAILED = "cannot be read"


@dataclass(slots=True)
class Reading:
    """One file as read. `ordinal` is -1 when there is no content; `before` and `size` belong to this very content."""

    outcome: Outcome
    why: str = ""
    ordinal: int = -1
    before: os.stat_result | None = None
    size: int = 0  # of the file, holes included
    extra: Extra = field(default_factory=Extra)


class Reader:
    """Reads files by name below a folder's descriptor. `ordinal` is the next one; it grows with every attempt."""

    def __init__(self, pool: SlabPool, attributes: Attributes) -> None:
        self.filler = Filler(pool)
        self.ordinal = 0
        self.bytes_read = 0
        self.last = Reading(Outcome.VANISHED)  # what `careful` found
        self._attributes = attributes
        self._no_atime = os.O_NOATIME
        self._self = os.geteuid()

    def simple(
        self, folder: int, found: Scan, rows: list[int], content: list[int], extras: dict[int, Extra]
    ) -> Iterator[Slab | int]:
        """Read ordinary small files fast: ordinals go to `content`. Rows that need `careful` are yielded as they come.

        One stat before (the scan's) and one after are equal: then the content is that of one moment.
        """
        names, filler = found.names, self.filler
        sizes, mtimes, ctimes = (found.table[:, column].tolist() for column in (SIZE, MTIME, CTIME))
        inodes, owners, blocks = (found.table[:, column].tolist() for column in (INODE, UID, BLOCKS))
        xattrs = not len(found.table) or self._attributes.supported(int(found.table[0, DEVICE]))
        for row in rows:
            size = sizes[row]
            if size > WHOLE_BYTES or blocks[row] * _BLOCK_BYTES < size:
                yield row
                continue
            if not filler.fits(size + 1):
                yield filler.hand_out()
            memory, start = filler.room().memory, filler.used
            try:
                descriptor = self._open(names[row], folder, owners[row])
            except OSError:
                yield row
                continue
            try:
                # One byte more than there should be, to see that there is not.
                got = os.readv(descriptor, [memory[start : start + size + 1]]) if size else 0
                if xattrs and os.listxattr(descriptor):
                    found_xattrs = self._attributes.read(descriptor, 0)
                    if found_xattrs:
                        extras[row] = {"xattrs": found_xattrs}
                s = os.fstat(descriptor)
            except OSError:
                yield row
                continue
            finally:
                os.close(descriptor)
            if (
                s.st_ctime_ns != ctimes[row]
                or s.st_mtime_ns != mtimes[row]
                or s.st_size != size
                or got != size
                or s.st_ino != inodes[row]
            ):
                extras.pop(row, None)
                self.ordinal += 1
                yield row
            elif size:
                content[row] = self.ordinal
                filler.add(self.ordinal, size)
                self.ordinal += 1
                self.bytes_read += size

    def careful(self, name: bytes, folder: int, owner: int) -> Iterator[Slab]:
        """Read one file of any size, holes left out, again if it changes meanwhile; afterwards see `last`."""
        for attempt in range(ATTEMPTS):
            try:
                descriptor = self._open(name, folder, owner)
            except FileNotFoundError:
                self.last = Reading(Outcome.VANISHED)
                return
            except OSError as error:
                other = error.errno in {errno.ELOOP, errno.ENXIO}  # a link, a socket
                self.last = Reading(Outcome.OTHER_KIND if other else Outcome.FAILED, error.strerror or "")
                return
            try:
                yield from self._attempt(descriptor, final=attempt == ATTEMPTS - 1)
            except OSError as error:
                self.last = Reading(Outcome.FAILED, error.strerror or "")
            finally:
                os.close(descriptor)
            if self.last.outcome is not Outcome.UNSTEADY:
                return

    def _open(self, name: bytes, folder: int, owner: int) -> int:
        """A descriptor for reading, never of what a link points to; the access time stays where that is allowed."""
        flags = _FLAGS | self._no_atime if self._self in (0, owner) else _FLAGS
        try:
            return os.open(name, flags, dir_fd=folder)
        except PermissionError:
            if flags == _FLAGS:
                raise
            descriptor = os.open(name, _FLAGS, dir_fd=folder)
            self._no_atime = 0  # root of a container is not everybody's master
            return descriptor

    def _attempt(self, descriptor: int, *, final: bool) -> Iterator[Slab]:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            self.last = Reading(Outcome.OTHER_KIND)
            return
        extra = Extra()
        xattrs = self._attributes.read(descriptor, before.st_dev)
        if xattrs:
            extra["xattrs"] = xattrs
        extents: Extents = [(0, before.st_size)] if before.st_size else []
        if before.st_blocks * _BLOCK_BYTES < before.st_size:
            extents = data_extents(descriptor, before.st_size)
        size = sum(length for _, length in extents)
        got, why = 0, ""
        ordinal = self.ordinal
        if size > SLAB_BYTES:
            self.ordinal += 1
            got, why = yield from self._long(descriptor, ordinal, extents)
        elif size:
            self.ordinal += 1
            if not self.filler.fits(size):
                yield self.filler.hand_out()
            memory = self.filler.room().memory
            got, why = fill(descriptor, memory[self.filler.used :], extents)
        steady = got == size and _same(before, os.fstat(descriptor))
        if why:
            self.last = Reading(Outcome.FAILED, why)
            return
        if 0 < size <= SLAB_BYTES and got and (steady or final):  # else nobody needs to hear of this attempt
            self.filler.add(ordinal, got)
        self.bytes_read += got
        length = before.st_size
        if got < size:
            extents = shortened(extents, got)
            length = sum(extents[-1]) if extents else 0
        if extents != [(0, length)] and length:
            extra["holes"] = extents
        outcome = Outcome.STEADY if steady else Outcome.UNSTEADY
        self.last = Reading(outcome, "", ordinal if got else -1, before, length, extra)

    def _long(
        self, descriptor: int, ordinal: int, extents: Extents
    ) -> Generator[Slab, None, tuple[int, str]]:
        """Content over several slabs; returns as `fill` does. A file that turns out shorter still gets its end."""
        if not self.filler.empty:
            yield self.filler.hand_out()
        size = sum(length for _, length in extents)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        cold = size >= _COLD_BYTES and not _cached(descriptor, extents[0][0])
        got, why = 0, ""
        for portion in pieces(extents, SLAB_BYTES):
            slab = self.filler.room()
            wanted = sum(length for _, length in portion)
            count, why = fill(descriptor, slab.memory[START:], portion)
            short = count < wanted
            if not count:
                if not got:
                    break
                count = 1  # the slab before has announced more: a zero byte keeps the promise
                slab.memory[START] = 0
            slab.position = got
            slab.more = not short and got + count < size
            self.filler.add(ordinal, count)
            yield self.filler.hand_out()
            got += count
            if cold:
                os.posix_fadvise(descriptor, portion[0][0], wanted, os.POSIX_FADV_DONTNEED)
            if short:
                break
        return got, why


def _same(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_size == after.st_size
    )


def _cached(descriptor: int, offset: int) -> bool:
    """Whether somebody has the file in memory: then it is not ours to drop."""
    try:
        return os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:  # this file system cannot tell
        return True
