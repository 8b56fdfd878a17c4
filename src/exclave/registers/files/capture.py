"""One reading of a tree of files: folder by folder, parents first, told as soon as its files are in a slab."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from exclave.errors import Misconfigured, Unreachable
from exclave.listing import DEVICE, GID, ROOT, UID, Listing
from exclave.registers.base import Event, Prior, SameFolder, Told
from exclave.registers.files.attributes import Attributes
from exclave.registers.files.owners import Owners
from exclave.registers.files.reading import Outcome, Reader
from exclave.registers.files.telling import Teller, stat_kinds
from exclave.registers.files.walking import FOLDER_FLAGS, Ladder, Scan, join, scan
from exclave.registers.slabs import Slab, SlabPool
from exclave.types import Gap, Instant

_WAITING_ROWS = 100_000  # bounds the listings that wait for a slab to be full
_TELL_EVERY = 64  # folders between two reports of progress


class FilesCapture:
    """One reading of the tree below `root`."""

    def __init__(
        self,
        root: Path,
        left_out: Callable[[bytes, bytes], bool] | None,
        prior: Prior,
        slabs: SlabPool,
        told: Told,
    ) -> None:
        self._left_out = left_out
        self._prior = prior
        self._told = told
        self._gaps: list[Gap] = []
        self._owners = Owners()
        self._attributes = Attributes()
        self._reader = Reader(slabs, self._attributes)
        self._teller = Teller(self._reader, self._attributes, self._gaps)
        self._begun = Instant(time.time_ns())
        self._seen = 0
        self._waiting: list[Listing | SameFolder] = []
        self._waiting_rows = 0
        self._top = open_root(root)
        self._ladder = Ladder(self._top)

    def close(self) -> None:
        """Give back every descriptor and slab. Further calls do nothing."""
        self._reader.filler.close()
        self._ladder.close()
        if self._top >= 0:
            os.close(self._top)
            self._top = -1

    def changes(self) -> Iterator[Event]:
        """The top folder, then each folder's subfolders by name, to any depth."""
        try:
            yield from self._walk()
        finally:
            self._reader.filler.close()

    def consistent_at(self) -> Instant:
        """When reading began: each file is captured as it was then or later."""
        return self._begun

    def position(self) -> str:
        """None: a tree of files does not count its changes."""
        return ""

    def environment(self) -> dict[str, Any]:
        """Names of the owners."""
        return {"owners": self._owners.document()}

    def gaps(self) -> list[Gap]:
        """What could not be captured, in the order of the walk."""
        return list(self._gaps)

    def settle(self) -> None:
        """Nothing is kept at the source."""

    def _walk(self) -> Iterator[Event]:
        stack = [b""]
        folders = 0
        while stack:
            path = stack.pop()
            at_ns = time.time_ns()
            entered = self._enter(path)
            if entered is None:
                continue
            descriptor, found = entered
            before = self._prior.folder(path)
            stack.extend(reversed(self._inner_folders(path, found)))
            for event in self._teller.tell(path, descriptor, found, before, at_ns):
                if isinstance(event, Slab):
                    more = event.more
                    yield event
                    if not more:
                        yield from self._release()
                else:
                    self._waiting.append(event)
            self._waiting_rows += len(found.names)
            if self._waiting_rows > _WAITING_ROWS and not self._reader.filler.empty:
                yield self._reader.filler.hand_out()
            if self._reader.filler.empty:
                yield from self._release()
            self._owners.see(found.table[:, UID], found.table[:, GID])
            self._seen += len(found.names)
            folders += 1
            if folders % _TELL_EVERY == 0:
                self._told(self._seen, self._reader.bytes_read)
        if not self._reader.filler.empty:
            yield self._reader.filler.hand_out()
        yield from self._release()
        self._told(self._seen, self._reader.bytes_read)

    def _release(self) -> Iterator[Event]:
        """Folders whose files are all in slabs that were handed out."""
        ready, self._waiting, self._waiting_rows = self._waiting, [], 0
        yield from ready

    def _enter(self, path: bytes) -> tuple[int, Scan] | None:
        """A folder's descriptor and entries; None when it is not to be had."""
        try:
            descriptor = self._ladder.open(path)
            found = scan(descriptor)
        except FileNotFoundError:
            if path:
                return None  # removed since its parent was read
            raise _unreadable("the folder is gone") from None
        except OSError as error:
            if not path:
                raise _unreadable(error.strerror or "") from error
            other = error.errno in {errno.ENOTDIR, errno.ELOOP}
            self._gaps.append(
                Gap(path, Outcome.OTHER_KIND.value if other else error.strerror or "cannot be read")
            )
            return None
        if self._left_out is not None:
            left_out = self._left_out
            found.keep([not left_out(path, name) for name in found.names])
        if not path:
            found.include(ROOT, os.fstat(descriptor))
        self._gaps.extend(Gap(join(path, name), why) for name, why in found.unseen)
        self._gaps.extend(
            Gap(join(path, name), "its times are beyond the year 2262") for name in found.beyond
        )
        return descriptor, found

    def _inner_folders(self, path: bytes, found: Scan) -> list[bytes]:
        """Paths of the folders in this one that are to be walked too."""
        inner: list[bytes] = []
        devices = found.table[:, DEVICE]
        for row in np.flatnonzero(stat_kinds(found) == stat.S_IFDIR).tolist():
            name = found.names[row]
            if not path and name == ROOT:
                continue
            pseudo = self._attributes.pseudo(int(devices[row]))
            if pseudo:
                self._gaps.append(
                    Gap(join(path, name), f"a file system of type {pseudo} has no content to keep")
                )
            else:
                inner.append(join(path, name))
        return inner


def open_root(root: Path) -> int:
    """A descriptor of the top folder, which itself may be given through a link."""
    try:
        return os.open(root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except NotADirectoryError as error:
        raise Misconfigured(
            "files-root-not-a-folder",
            f"{root} cannot be protected as a tree of files",
            why="it is not a folder",
            hint="exclave config show --effective",
        ) from error
    except OSError as error:
        raise Unreachable(
            "files-root-unreachable",
            f"{root} cannot be read",
            why=error.strerror or "",
            hint="exclave doctor",
        ) from error


def _unreadable(why: str) -> Unreachable:
    return Unreachable(
        "files-root-unreachable",
        "The top folder of the register cannot be read",
        why=why,
        hint="exclave doctor",
    )
