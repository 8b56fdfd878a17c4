"""Home's deduplication index on disk: which chunks are abroad already, and where.

Records of this session are in memory first, then in `pending` runs; only `commit` makes them last. A crash at any
point leaves either the records of a commit or none of them in each run: never a reference to a pack that no
snapshot names. All of it may be lost at any time: chunks are then sealed and sent again.

Files: `<first>-<last>.run` (committed), `.pending` (this session's), `.new` (being written); first and last are
spill numbers, 16 hex digits. A run that spans another's numbers contains it. Other files are not touched.
One process at a time; the caller holds the lock.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from exclave.errors import Tampered, Unreachable
from exclave.sealed.index import blocks, merging
from exclave.sealed.index.blocks import ID_BYTES, Records
from exclave.sealed.index.runs import Builder, Run
from exclave.types import Buffer

MEMORY_RECORDS = 1 << 18  # then they go to disk: 36 MB as a dict, which was faster than arrays
FILTER_BUDGET_BYTES = 40 << 20  # all filters of 1e8 chunks; of more, the runs last asked go without

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.(run|pending|new)")
# As Python objects these lose trailing zero bytes (and stay distinct); back in an array they regain them.
_IDS = f"S{ID_BYTES}"


class _RunFile:
    """One run and its open file."""

    def __init__(self, path: Path, first: int, last: int) -> None:
        self.path = path
        self.first = first
        self.last = last
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.run = Run(self._read, os.fstat(self._descriptor).st_size)
        except BaseException:
            os.close(self._descriptor)
            raise

    def close(self) -> None:
        """Once."""
        os.close(self._descriptor)

    def remove(self) -> None:
        """Close it and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:  # a read of more than 2 GiB comes in parts
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise blocks.damaged(f"it cannot be read ({error.strerror})") from error
        return data


class ChunkIndex:
    """Chunk id -> reference, with bounded memory. Not for several threads at once.

    Opening it forgets what an earlier session added and did not commit. Raises Unreachable when the folder cannot
    be used (disk full, permissions); damage is never an error: the damaged run is dropped and counted in `dropped`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._recent: dict[bytes, int] = {}
        self._committed: list[_RunFile] = []  # oldest first, like all lists of runs here
        self._pending: list[_RunFile] = []
        self.dropped = 0
        with _disk(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._open()
        self._next = 1 + max((file.last for file in self._committed), default=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """How many records there are; an id that was added again may count twice until its runs are joined."""
        return len(self._recent) + sum(file.run.records for file in self._committed + self._pending)

    def find(self, ids: Buffer) -> NDArray[np.int64]:
        """The references of n concatenated ids of 16 bytes, -1 where unknown."""
        count = len(ids) // ID_BYTES
        if self._recent:
            keys: list[bytes] = np.frombuffer(ids, dtype=_IDS).tolist()
            found = np.fromiter(map(self._recent.get, keys, repeat(-1)), dtype=np.int64, count=count)
        else:
            found = np.full(count, -1, dtype=np.int64)
        if self._committed or self._pending:
            missing = np.flatnonzero(found < 0)
            if missing.size:
                self._find_in_runs(ids, missing, found)
        return found

    def add(self, ids: Buffer, references: NDArray[np.int64]) -> None:
        """Know these from now on; a known id gets the new reference. Lasts only if `commit` follows."""
        keys: list[bytes] = np.frombuffer(ids, dtype=_IDS).tolist()
        if len(keys) != len(references):
            raise ValueError("one reference for each id")
        self._recent.update(zip(keys, references.tolist(), strict=True))
        if len(self._recent) >= MEMORY_RECORDS:
            self._spill()

    def commit(self) -> None:
        """Durable on return. Call it when the snapshot that names the packs of all these references is published."""
        if self._recent:
            self._spill()
        with _disk(self._folder):
            for file in self._pending:
                _sync(file.path)
            for file in self._pending:
                final = file.path.with_suffix(".run")
                file.path.rename(final)
                file.path = final
            if self._pending:
                _sync(self._folder)
        self._committed += self._pending
        self._pending = []
        self._join(self._committed, lasting=True)

    def discard_uncommitted(self) -> None:
        """Forget everything since the last commit: its packs will never be named."""
        self._recent = {}
        while self._pending:
            self._pending.pop().remove()

    def load(self, records: Iterable[tuple[Buffer, NDArray[np.int64]]]) -> None:
        """Replace everything by these (ids, references), later ones over earlier ones, and commit."""
        self.discard_uncommitted()
        with _disk(self._folder):
            while self._committed:
                self._committed.pop().remove()
            _sync(self._folder)
        self.dropped = 0
        for ids, references in records:
            self.add(ids, references)
        self.commit()

    def close(self) -> None:
        """Forget what is not committed and close the files. May be repeated."""
        self.discard_uncommitted()
        while self._committed:
            self._committed.pop().close()

    def _open(self) -> None:
        names = sorted(entry.name for entry in os.scandir(self._folder))
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                continue
            path = self._folder / name
            if match[3] != "run":
                path.unlink()
                continue
            try:
                self._committed.append(_RunFile(path, int(match[1], 16), int(match[2], 16)))
            except Tampered:
                self.dropped += 1
                path.unlink()
        # A merge that was interrupted before it deleted its sources leaves them beside its result.
        self._committed.sort(key=lambda file: (file.first, -file.last))
        last = 0
        for file in list(self._committed):
            if file.last <= last:
                self._committed.remove(file)
                file.remove()
            last = max(last, file.last)

    def _find_in_runs(self, ids: Buffer, missing: NDArray[np.intp], found: NDArray[np.int64]) -> None:
        pairs = blocks.halves(ids)[missing]
        order = np.argsort(pairs[:, 0])
        missing = missing[order]
        high, low = pairs[order, 0], pairs[order, 1]
        for files in (self._pending, self._committed):
            for file in reversed(list(files)):
                try:
                    self._filter(file.run)
                    references = file.run.find(high, low)
                except Tampered:
                    self._drop(files, file)
                    continue
                hit = references >= 0
                if bool(hit.any()):
                    found[missing[hit]] = references[hit]
                    rest = ~hit
                    missing, high, low = missing[rest], high[rest], low[rest]
                    if not missing.size:
                        return

    def _filter(self, run: Run) -> None:
        if run.filtered:
            return
        files = self._committed + self._pending
        used = sum(file.run.filter_bytes for file in files if file.run.filtered)
        if used + run.filter_bytes <= FILTER_BUDGET_BYTES:
            run.load_filters()

    def _drop(self, files: list[_RunFile], file: _RunFile) -> None:
        files.remove(file)
        file.remove()
        self.dropped += 1

    def _spill(self) -> None:
        keys = np.array(list(self._recent), dtype=_IDS)
        references = np.fromiter(self._recent.values(), dtype=np.int64, count=len(self._recent))
        pairs = blocks.halves(keys.data)
        records = blocks.sort(Records(pairs[:, 0], pairs[:, 1], references))
        self._pending.append(self._write([records], self._next, self._next, lasting=False))
        self._next += 1
        self._recent = {}
        self._join(self._pending, lasting=False)

    def _join(self, files: list[_RunFile], *, lasting: bool) -> None:
        """Merge the newest of `files` when there are too many."""
        while count := merging.newest_to_join([file.run.records for file in files]):
            sources = files[-count:]
            for file in sources:
                file.run.forget_filters()
            stretches = merging.merge([file.run for file in sources])
            try:
                joined = self._write(stretches, sources[0].first, sources[-1].last, lasting=lasting)
            except Tampered:
                damaged = [file for file in sources if not _readable(file)]
                for file in damaged or sources:  # all, if the damage comes and goes
                    self._drop(files, file)
                continue
            files[-count:] = [joined]
            for file in sources:
                file.remove()

    def _write(self, stretches: Iterable[Records], first: int, last: int, *, lasting: bool) -> _RunFile:
        """A new run; durable, under its final name, when `lasting`."""
        stem = f"{first:016x}-{last:016x}"
        new, final = self._folder / f"{stem}.new", self._folder / f"{stem}.{'run' if lasting else 'pending'}"
        builder = Builder(os.urandom(blocks.SEED_BYTES))
        with _disk(self._folder):
            try:
                with new.open("wb", buffering=0) as file:
                    for records in stretches:
                        _write_all(file.fileno(), builder.add(records).data)
                    for part in builder.finish():
                        _write_all(file.fileno(), part)
                    if lasting:
                        os.fsync(file.fileno())
                new.rename(final)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            if lasting:
                _sync(self._folder)
            return _RunFile(final, first, last)


def _readable(file: _RunFile) -> bool:
    """Whether every block of a run is what was written."""
    try:
        for _ in merging.merge([file.run]):
            pass
    except Tampered:
        return False
    return True


def _write_all(descriptor: int, data: Buffer) -> None:
    view = memoryview(data)
    if not view.nbytes:
        return
    view = view.cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def _sync(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk(folder: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise Unreachable(
            "index-unusable",
            f"Home's index in {folder} cannot be used",
            why=error.strerror or str(error),
            hint="free some space or mend the permissions, then try again",
        ) from error
