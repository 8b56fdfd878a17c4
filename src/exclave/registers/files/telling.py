"""Turns one folder as scanned into what the store is told: slabs of changed files, then the folder."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from exclave.listing import (
    AS_BEFORE,
    CTIME,
    DEVICE,
    INODE,
    MODE,
    MTIME,
    NO_CONTENT,
    ROOT,
    SIZE,
    STATS,
    UID,
    Extra,
    Listing,
)
from exclave.registers.base import SameFolder
from exclave.registers.files.attributes import Attributes, by_name
from exclave.registers.files.reading import Outcome, Reader
from exclave.registers.files.walking import FOLDER_FLAGS, LINKS, Scan, columns, join
from exclave.registers.slabs import Slab
from exclave.types import Gap

UNKNOWN_TIME = -1  # as CTIME: read this entry again next time, whatever it says
CLOCK_TICK_NS = 50_000_000  # two changes within it may leave the same time on a file
COARSE_TICK_NS = 2_100_000_000  # the same where a file system keeps whole (even) seconds only
SKEW_NS = 86_400_000_000_000  # a time of writing further ahead was set by hand, not by a clock that is fast
_SECOND_NS = 1_000_000_000
_GONE = {errno.ENOENT, errno.ESTALE}
_OTHER_KIND = {errno.ELOOP, errno.ENOTDIR, errno.EINVAL}

Bits = NDArray[np.bool_]


class Teller:
    """Tells folders one after the other, in the order of the walk; remembers hard links between them."""

    def __init__(self, reader: Reader, attributes: Attributes, gaps: list[Gap]) -> None:
        self.reader = reader
        self.attributes = attributes
        self.gaps = gaps
        self._links: dict[tuple[int, int], tuple[bytes, int]] = {}  # inode -> first path, links not yet seen

    def tell(
        self, path: bytes, descriptor: int, found: Scan, before: Listing | None, at_ns: int
    ) -> Iterator[Slab | Listing | SameFolder]:
        """Slabs, then one event for the folder. `at_ns` is when the scan began. `found` loses what vanished."""
        telling = _Telling(self, path, descriptor, found, before)
        if telling.is_same():
            yield SameFolder(path)
        else:
            yield from telling.read()
            yield telling.listing(at_ns)
        self._count(found)

    def first(self, key: tuple[int, int]) -> bytes | None:
        """The path under which a linked inode was met first."""
        known = self._links.get(key)
        return None if known is None else known[0]

    def meet(self, key: tuple[int, int], path: bytes, links: int) -> None:
        """An inode with several names has its content under `path`."""
        self._links.setdefault(key, (path, links))

    def _count(self, found: Scan) -> None:
        """Forget inodes whose last name has been seen."""
        for row in _linked(found).tolist():
            key = _key(found, row)
            known = self._links.get(key)
            if known is None:
                continue
            if known[1] <= 1:
                del self._links[key]
            else:
                self._links[key] = (known[0], known[1] - 1)


class _Telling:
    """One folder."""

    def __init__(
        self, teller: Teller, path: bytes, descriptor: int, found: Scan, before: Listing | None
    ) -> None:
        self._teller = teller
        self._path = path
        self._descriptor = descriptor
        self._found = found
        self._before = before
        self._kinds = stat_kinds(found)
        self._stats = found.table[:, :STATS].copy()
        self._regular: Bits = self._kinds == stat.S_IFREG
        self._stats[~self._regular, SIZE] = 0
        self._linked = _linked(found)
        self._unchanged, self._earlier = _compare(found.names, self._stats, before)
        self._content = [NO_CONTENT] * len(found.names)
        self._extras: dict[int, Extra] = {}
        self._distrusted: set[int] = set()  # rows to be read again next time
        self._gone: set[int] = set()

    def is_same(self) -> bool:
        """Nothing in the folder differs, also not under which of its names a linked file has its content."""
        before = self._before
        if before is None or self._found.names != before.names or not self._unchanged.all():
            return False
        twins = [(row, self._twin(row)) for row in self._linked.tolist()]
        return all(before.extras.get(row, {}).get("twin") == twin for row, twin in twins)

    def read(self) -> Iterator[Slab]:
        """Look at everything that is new or differs, and at hard links."""
        self._carry_over()
        simple = self._regular & ~self._unchanged
        simple[self._linked] = False
        rows = np.flatnonzero(simple).tolist()
        if rows:
            reader = self._teller.reader
            for item in reader.simple(self._descriptor, self._found, rows, self._content, self._extras):
                if isinstance(item, Slab):
                    yield item
                else:
                    yield from self._careful(item)
        others: Bits = ~self._unchanged & ~self._regular
        others[self._linked] = True
        for row in np.flatnonzero(others).tolist():
            yield from self._other(row)

    def listing(self, at_ns: int) -> Listing:
        """The folder as it was read, without what vanished."""
        stats = self._stats
        coarse = (stats[:, MTIME] % _SECOND_NS == 0) & (stats[:, CTIME] % _SECOND_NS == 0)
        tick = np.where(coarse, COARSE_TICK_NS, CLOCK_TICK_NS)
        changed, written = stats[:, CTIME], stats[:, MTIME]
        young = (changed > at_ns - tick) | ((written > at_ns - tick) & (written < at_ns + SKEW_NS))
        stats[young & ~self._unchanged, CTIME] = UNKNOWN_TIME
        if self._distrusted:
            stats[sorted(self._distrusted), CTIME] = UNKNOWN_TIME
        content = np.array(self._content, np.int64)
        names, extras = self._found.names, self._extras
        if self._gone:
            kept = [row for row in range(len(names)) if row not in self._gone]
            names = [names[row] for row in kept]
            extras = {at: extras[row] for at, row in enumerate(kept) if row in extras}
            stats, content = stats[kept], content[kept]
        return Listing(self._path, names, stats, content, np.zeros(len(names), np.int32), extras)

    def _carry_over(self) -> None:
        """Unchanged entries keep what the previous snapshot knows of them."""
        before = self._before
        if before is None:
            return
        if before.extras:
            rows = {old: row for row, old in enumerate(self._earlier.tolist()) if self._unchanged[row]}
            self._extras = {rows[old]: extra for old, extra in before.extras.items() if old in rows}
        for row in np.flatnonzero(self._unchanged & self._regular & (self._stats[:, SIZE] > 0)).tolist():
            if self._extras.get(row, {}).get("holes") != []:
                self._content[row] = AS_BEFORE

    def _twin(self, row: int) -> bytes | None:
        """The path that has the content of this linked entry; None when this is the one."""
        mine = join(self._path, self._found.names[row])
        key = _key(self._found, row)
        first = self._teller.first(key)
        if first is None:
            self._teller.meet(key, mine, int(self._found.table[row, LINKS]))
        return None if first == mine else first

    def _other(self, row: int) -> Iterator[Slab]:
        """Anything but a plain file with one name."""
        kind = int(self._kinds[row])
        if kind != stat.S_IFDIR and self._found.table[row, LINKS] > 1:
            twin = self._twin(row)
            if twin is not None:
                self._content[row] = NO_CONTENT
                self._extras[row] = {"twin": twin}
                return
            had_content = "twin" not in self._extras.get(row, {})
            if self._unchanged[row] and had_content:
                return
            self._unchanged[row] = False
            self._content[row] = NO_CONTENT
            self._extras.pop(row, None)
        if kind == stat.S_IFREG:
            yield from self._careful(row)
        else:
            self._without_content(row, kind)

    def _without_content(self, row: int, kind: int) -> None:
        name = self._found.names[row]
        device = int(self._stats[row, DEVICE])
        extra = Extra()
        try:
            if kind == stat.S_IFDIR:
                pseudo = "" if name == ROOT else self._teller.attributes.pseudo(device)
                if pseudo:
                    extra["note"] = f"a file system of type {pseudo}"
                xattrs = {} if pseudo else self._folder_xattrs(name, device)
            else:
                if kind == stat.S_IFLNK:
                    extra["target"] = os.readlink(name, dir_fd=self._descriptor)
                elif kind in (stat.S_IFBLK, stat.S_IFCHR):
                    extra["device"] = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_rdev
                supported = self._teller.attributes.supported(device)
                place = by_name(self._descriptor, name)
                xattrs = self._teller.attributes.read(place, device) if supported else {}
        except OSError as error:
            if error.errno in _GONE:
                self._forget(row)
            elif error.errno in _OTHER_KIND:
                self._forget(row)
                self._gap(row, Outcome.OTHER_KIND.value)
            else:
                self._fail(row, error.strerror or Outcome.FAILED.value)
            return
        if xattrs:
            extra["xattrs"] = xattrs
        if extra:
            self._extras[row] = extra

    def _folder_xattrs(self, name: bytes, device: int) -> dict[bytes, bytes]:
        """Of a folder; opening it shows whether it can be entered."""
        descriptor = (
            self._descriptor if name == ROOT else os.open(name, FOLDER_FLAGS, dir_fd=self._descriptor)
        )
        try:
            return self._teller.attributes.read(descriptor, device)
        finally:
            if descriptor != self._descriptor:
                os.close(descriptor)

    def _careful(self, row: int) -> Iterator[Slab]:
        """A file that is long, sparse, linked or that changed under the fast reading."""
        reader = self._teller.reader
        yield from reader.careful(self._found.names[row], self._descriptor, int(self._stats[row, UID]))
        got = reader.last
        if got.outcome in (Outcome.VANISHED, Outcome.OTHER_KIND):
            self._forget(row)
            if got.outcome is Outcome.OTHER_KIND:
                self._gap(row, got.outcome.value)
            return
        if got.before is None:
            self._fail(row, got.why or got.outcome.value)
            return
        self._stats[row] = columns(got.before)[0][:STATS]
        self._stats[row, SIZE] = got.size
        self._content[row] = got.ordinal if got.ordinal >= 0 else NO_CONTENT
        extra = got.extra
        if got.outcome is Outcome.UNSTEADY:
            extra["note"] = got.outcome.value
            self._distrusted.add(row)
            self._gap(row, got.outcome.value)
        if extra:
            self._extras[row] = extra

    def _fail(self, row: int, why: str) -> None:
        """The entry stays, without content, and says so."""
        self._stats[row, SIZE] = 0
        self._content[row] = NO_CONTENT
        self._extras[row] = {"note": why}
        self._distrusted.add(row)
        if (
            self._kinds[row] != stat.S_IFDIR or self._found.names[row] == ROOT
        ):  # else told when it cannot be entered
            self._gap(row, why)

    def _forget(self, row: int) -> None:
        self._gone.add(row)

    def _gap(self, row: int, why: str) -> None:
        self._teller.gaps.append(Gap(join(self._path, self._found.names[row]), why))


def stat_kinds(found: Scan) -> NDArray[np.int64]:
    """The file type bits of every entry."""
    return found.table[:, MODE] & 0o170000


def _linked(found: Scan) -> NDArray[np.int64]:
    """Rows of entries with several names, folders apart."""
    return np.flatnonzero((found.table[:, LINKS] > 1) & (stat_kinds(found) != stat.S_IFDIR))


def _key(found: Scan, row: int) -> tuple[int, int]:
    return int(found.table[row, DEVICE]), int(found.table[row, INODE])


def _compare(
    names: list[bytes], stats: NDArray[np.int64], before: Listing | None
) -> tuple[Bits, NDArray[np.int64]]:
    """For every row: whether its eight columns are those of the previous snapshot, and its row there (or -1)."""
    rows = len(names)
    if before is None or not before.names:
        return np.zeros(rows, np.bool_), np.full(rows, -1, np.int64)
    if names == before.names:
        return (stats == before.stats).all(axis=1), np.arange(rows)
    at = {name: row for row, name in enumerate(before.names)}
    earlier = np.array([at.get(name, -1) for name in names], np.int64)
    same: Bits = (stats == before.stats[earlier]).all(axis=1) & (earlier >= 0)
    return same, earlier
