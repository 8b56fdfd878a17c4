"""Builds a tree of files from listings and content that comes in any order.

What is restored may be wrong on purpose: names are checked, no link is followed, nothing that is there is replaced,
and until the end nobody else may enter the place.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exclave.errors import Refused, Unreachable
from exclave.listing import MODE, ROOT, SIZE, Extra, Listing
from exclave.registers.files.batches import Batch, Batches
from exclave.registers.files.checking import check_names, data_bytes, impossible
from exclave.registers.files.dressing import Dresser, Look
from exclave.registers.files.durable import make_durable
from exclave.registers.files.places import Places
from exclave.registers.files.walking import FOLDER_FLAGS, join
from exclave.registers.files.writeback import Writeback
from exclave.types import Gap

_KEPT_OPEN = 128  # descriptors of files that have a part of their content
_LONG_BYTES = 1 << 20  # files of at least this are written back as soon as they are complete
_WRITTEN_BACK_BYTES = 64 << 20  # and longer ones every so often
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR)


class TreeBuilder:
    """Rebuilds into `place`, which is made if missing and must be empty. Not for several threads at once.

    `owners` is what the captured environment says under that key. With `keep_owners`, entries go to the user and
    group of the same name, or else number; without, everything belongs to who runs this, and no program gets a
    set-user-id bit. Raises Refused (the place is in use), Unreachable (no room...), Tampered (an impossible tree).
    """

    def __init__(self, place: Path, *, owners: dict[str, dict[str, str]], keep_owners: bool) -> None:
        self._place = place
        try:
            self._top = _open_empty(place)
            self._dresser = Dresser(self._top, owners, keep_owners=keep_owners)
        except OSError as error:
            raise self._unwritable(error, b"") from error
        self._places = Places(self._top)
        self._told: set[int] = set()  # folders whose listing came
        self._batches = Batches()
        self._open: OrderedDict[int, int] = OrderedDict()  # file number -> descriptor
        self._looks: dict[int, Look] = {}  # of folders, for the end
        self._nodes: list[tuple[int, bytes, Look, int]] = []  # folder, name, look, device number
        self._twins: list[tuple[int, bytes, bytes]] = []  # folder, name, path of the content
        self._gaps: list[Gap] = []
        self._writeback = Writeback()
        self._unsettled: dict[int, int] = {}  # file number -> bytes since it was last written back

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back every descriptor. May be repeated; `finish` does it too."""
        while self._open:
            os.close(self._open.popitem()[1])
        self._places.close()
        if self._top < 0:
            return
        try:
            self._writeback.settle()
        finally:
            os.close(self._top)
            self._top = -1

    def folder(self, listing: Listing) -> NDArray[np.int64]:
        """Make the entries of one folder (its parent's listing comes first; each folder once).

        For every row the number under which `write` takes the file's content, or -1.
        """
        number = self._places.find(listing.path)
        if number is None or number in self._told:
            raise impossible(listing.path, "a folder is listed twice, or before the folder it is in")
        self._told.add(number)
        check_names(listing)
        wanted = np.full(len(listing.names), -1, np.int64)
        kinds = listing.stats[:, MODE] & 0o170000
        sizes = listing.stats[:, SIZE]
        waiting = (kinds == stat.S_IFREG) & (sizes > 0)
        lengths = sizes.copy()
        for row, extra in listing.extras.items():
            if "twin" in extra:
                waiting[row] = False
            elif "holes" in extra:
                lengths[row] = data_bytes(listing, row)
                waiting[row] = waiting[row] and lengths[row] > 0
        try:
            for row in np.flatnonzero(~waiting).tolist():
                self._entry(number, listing, row, int(kinds[row]))
        except OSError as error:
            raise self._unwritable(error, listing.path) from error
        rows = np.flatnonzero(waiting)
        if len(rows):
            wanted[rows] = self._batches.add(number, listing, rows, lengths[rows])
        return wanted

    def write(self, file_number: int, offset: int, data: memoryview) -> None:
        """Put a piece of content in its place; each byte comes once. The last piece completes the file."""
        batch = self._batches.find(file_number)
        at = file_number - batch.base
        size = len(data)
        left = batch.left[at] - size
        if left < 0 or not size:
            raise ValueError(f"{size} bytes for a file that lacks {batch.left[at]}")
        try:
            if not left and not batch.begun[at]:
                self._write_whole(batch, at, data)
            else:
                descriptor = self._part(file_number, batch, at)
                _put(descriptor, data, batch.places(at, offset, size))
                if not left:
                    self._complete(batch, at, descriptor, -1)
                self._settle_part(file_number, descriptor, size, complete=not left)
        except OSError as error:
            raise self._unwritable(error, join(self._places.path(batch.folder), batch.names[at])) from error
        batch.left[at] = left
        if not left:
            self._batches.done(batch)

    def finish(self) -> list[Gap]:
        """Hard links, nodes, folder attributes; everything durable on return. What could not be rebuilt."""
        try:
            self._close_incomplete()
            for folder, name, look, device in self._nodes:
                self._make_node(folder, name, look, device)
            for folder, name, twin in self._twins:
                self._link(folder, name, twin)
            for number in range(len(self._places) - 1, -1, -1):  # children have higher numbers
                look_or_none = self._looks.get(number)
                if look_or_none is not None:
                    path = self._places.path(number)
                    self._dresser.file(self._places.open(number), look_or_none, -1, path)
            self._writeback.settle()
            make_durable(self._top)
        except OSError as error:
            raise self._unwritable(error, b"") from error
        finally:
            self.close()
        return self._gaps + self._dresser.gaps()

    def _entry(self, folder: int, listing: Listing, row: int, kind: int) -> None:
        """Anything but a file that waits for content."""
        name = listing.names[row]
        extra = listing.extras.get(row, Extra())
        mode, uid, gid, size, mtime = listing.stats[row, :5].tolist()
        look = Look(mode, uid, gid, mtime, extra.get("xattrs", {}))
        if "twin" in extra and kind != stat.S_IFDIR:
            self._twins.append((folder, name, extra["twin"]))
        elif kind == stat.S_IFDIR:
            top = not folder and name == ROOT
            self._looks[0 if top else self._places.make(folder, listing.path, name)] = look
        elif kind == stat.S_IFREG:
            born = self._dresser.birth_mode(mode) if not look.xattrs else 0o600
            descriptor = os.open(name, _CREATE, born, dir_fd=self._places.open(folder))
            try:
                if size:
                    os.ftruncate(descriptor, size)  # one hole from the beginning to the end
                self._dresser.file(descriptor, look, born, join(listing.path, name))
            finally:
                os.close(descriptor)
        elif kind == stat.S_IFLNK:
            descriptor = self._places.open(folder)
            os.symlink(extra.get("target", b""), name, dir_fd=descriptor)
            self._dresser.entry(descriptor, name, look, join(listing.path, name))
        elif kind in _NODES:
            self._nodes.append((folder, name, look, extra.get("device", 0)))
        else:
            raise impossible(join(listing.path, name), "an entry of a kind that does not exist")

    def _write_whole(self, batch: Batch, at: int, data: memoryview) -> None:
        """A file that comes in one piece costs as few system calls as possible."""
        special = at in batch.extras
        born = 0o600 if special else self._dresser.birth_mode(batch.stats[at][MODE])
        descriptor = os.open(batch.names[at], _CREATE, born, dir_fd=self._places.open(batch.folder))
        try:
            if special:
                _prepare(descriptor, batch, at)
                _put(descriptor, data, batch.places(at, 0, len(data)))
            elif (done := os.write(descriptor, data)) != len(data):
                _put(descriptor, data[done:], [(done, len(data) - done)])
            self._complete(batch, at, descriptor, born)
        finally:
            os.close(descriptor)

    def _part(self, number: int, batch: Batch, at: int) -> int:
        """A descriptor for a file whose content comes in pieces."""
        descriptor = self._open.get(number)
        if descriptor is not None:
            self._open.move_to_end(number)
            return descriptor
        if len(self._open) >= _KEPT_OPEN:
            os.close(self._open.popitem(last=False)[1])
        folder = self._places.open(batch.folder)
        if batch.begun[at]:
            descriptor = os.open(batch.names[at], _AGAIN, dir_fd=folder)
        else:
            descriptor = os.open(batch.names[at], _CREATE, 0o600, dir_fd=folder)
            batch.begun[at] = 1
            _prepare(descriptor, batch, at)
        self._open[number] = descriptor
        return descriptor

    def _settle_part(self, number: int, descriptor: int, size: int, *, complete: bool) -> None:
        """Write a file back when it is complete, and a very long one now and then; short ones wait for the end."""
        written = self._unsettled.pop(number, 0) + size
        if complete:
            del self._open[number]
            if written < _LONG_BYTES:
                os.close(descriptor)
            else:
                self._writeback.hand_over(descriptor)
        elif written < _WRITTEN_BACK_BYTES:
            self._unsettled[number] = written
        else:
            self._writeback.hand_over(os.dup(descriptor))

    def _complete(self, batch: Batch, at: int, descriptor: int, born: int) -> None:
        """All bytes are there: the attributes."""
        path = join(self._places.path(batch.folder), batch.names[at]) if at in batch.extras else b""
        self._dresser.file(descriptor, batch.look(at), born, path)

    def _close_incomplete(self) -> None:
        for batch, at in self._batches.incomplete():
            path = join(self._places.path(batch.folder), batch.names[at])
            self._gaps.append(Gap(path, f"{batch.left[at]} bytes of its content did not come"))
        while self._open:
            os.close(self._open.popitem()[1])

    def _make_node(self, folder: int, name: bytes, look: Look, device: int) -> None:
        descriptor = self._places.open(folder)
        path = join(self._places.path(folder), name)
        try:
            os.mknod(name, stat.S_IFMT(look.mode) | 0o600, device, dir_fd=descriptor)
        except PermissionError as error:
            self._gaps.append(Gap(path, f"a device needs root: {error.strerror}"))
            return
        self._dresser.entry(descriptor, name, look, path)

    def _link(self, folder: int, name: bytes, twin: bytes) -> None:
        parent, _, first = twin.rpartition(b"/")
        source = self._places.find(parent)
        path = join(self._places.path(folder), name)
        if source is None or not first or first in {b".", b".."} or b"\0" in first:
            raise impossible(path, "a hard link to something that is not in the tree")
        held = os.dup(self._places.open(source))  # opening the other folder may close this one
        try:
            os.link(first, name, src_dir_fd=held, dst_dir_fd=self._places.open(folder), follow_symlinks=False)
        except FileNotFoundError:
            self._gaps.append(Gap(path, "a hard link to something that was not rebuilt"))
        finally:
            os.close(held)

    def _unwritable(self, error: OSError, path: bytes) -> Unreachable:
        return Unreachable(
            "restore-unwritable",
            f"{os.fsdecode(path) or 'the top folder'} cannot be written below {self._place}",
            why=error.strerror or "",
            hint="exclave explain restore-unwritable",
        )


def _open_empty(place: Path) -> int:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    top = os.open(place, FOLDER_FLAGS)
    try:
        if os.listdir(top):
            raise Refused(
                "restore-place-not-empty",
                f"{place} is not empty",
                why="a restore never writes over what is there",
                hint="name a folder that does not exist yet",
            )
        os.fchmod(top, 0o700)
        if "system.posix_acl_default" in _xattrs(top):
            os.removexattr(top, "system.posix_acl_default")  # or every entry would inherit it
    except BaseException:
        os.close(top)
        raise
    return top


def _xattrs(descriptor: int) -> list[str]:
    try:
        return os.listxattr(descriptor)
    except OSError:  # a file system without
        return []


def _prepare(descriptor: int, batch: Batch, at: int) -> None:
    """A sparse file has its full length from the beginning."""
    if "holes" in batch.extras.get(at, {}):
        os.ftruncate(descriptor, batch.stats[at][SIZE])


def _put(descriptor: int, data: memoryview, places: list[tuple[int, int]]) -> None:
    taken = 0
    for offset, length in places:
        done = 0
        while done < length:
            done += os.pwrite(descriptor, data[taken + done : taken + length], offset + done)
        taken += length
