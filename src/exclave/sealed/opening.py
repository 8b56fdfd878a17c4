"""Opening: the only module that can read what was sealed. Containers, then manifest records back into folders.

Nothing of a host's or an old writer's is believed: every length is bounded before memory is taken, every record is
checked before it is used, and the folded tree must have the digests that the newest manifest names.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from exclave import codec, instants
from exclave.codec import unb64
from exclave.crypto import hashing
from exclave.crypto import open as crypto_open
from exclave.crypto.hashing import DIGEST_BYTES
from exclave.errors import Tampered
from exclave.listing import SIZE, STATS, TRAVELLING
from exclave.sealed import container
from exclave.sealed.commits import Pack, Part
from exclave.sealed.folders import Digests, Folder, Ints, extras_from
from exclave.sealed.keys import Opener
from exclave.sealed.manifest import MAX_DEPTH, VERSION, Head
from exclave.sealed.packing import Contents, read_contents, read_frame
from exclave.types import EpochId, Gap, ObjectId, RegisterId

MAX_COLUMN = 1 << 26
MAX_CHUNKS = 1 << 28  # of one folder: 2 TiB of pages of 8 KiB
MAX_PAGE_BYTES = 1 << 20
MAX_REFERENCE = 1 << 62
MAX_PLACE = 1 << 53  # where a run may begin in its file


@dataclass(frozen=True, slots=True)
class Expected:
    """What a container must say of itself, because the commit names it."""

    kind: int
    realm: bytes
    register: RegisterId
    epoch: EpochId
    number: int | None = None  # pack number; not checked when None


@dataclass(frozen=True, slots=True)
class FolderChange:
    """One folder record, checked."""

    rows: Folder
    patched: Digests  # (n,): 1 where the runs replace pages of what was there
    removed: list[bytes]
    digest: bytes


@dataclass(frozen=True, slots=True)
class PackTable:
    """One packs record."""

    packs: list[Pack]


Record = Head | FolderChange | PackTable


def open_object(data: bytes, expected: Expected, opener: Opener) -> memoryview:
    """The plaintext of a container whose SHA-256 was already checked. Raises Tampered, Refused (by the opener)."""
    header = container.parse(data)
    same = (header.kind, header.realm, header.register, header.epoch) == (
        expected.kind, expected.realm, expected.register, expected.epoch,
    )  # fmt: skip
    if not same or expected.number not in (None, header.number) or len(data) != header.object_bytes:
        raise _bad("it belongs to another register, epoch or place, or has another length")
    content_key = opener.content_key(bytes(data[: header.header_bytes]))
    body = memoryview(data)[header.header_bytes :]
    plain = crypto_open.open_body(body, content_key, container.body_context(header.fixed()))
    if len(plain) != header.plain_bytes:
        raise _bad("its plaintext has another length than it says")
    return plain


def slots(plain: memoryview) -> Iterator[memoryview]:
    """Every slot of a plaintext in order."""
    contents = read_contents(plain)
    for frame in range(len(contents.frames)):
        yield from frame_slots(plain, contents, frame)


def frame_slots(plain: memoryview, contents: Contents, frame: int) -> Iterator[memoryview]:
    """Every slot of one frame in order."""
    raw = read_frame(plain, contents, frame)
    for slot in range(*contents.slots_of(frame)):
        start = int(contents.starts[slot])
        yield raw[start : start + int(contents.slots[slot])]


def read_record(record: memoryview) -> Record:
    """One manifest record. Raises Tampered."""
    try:
        (length,) = struct.unpack_from(">I", record)
        if length > len(record) - 4:
            raise _bad("a record that is shorter than it says")
        fields = codec.decode(bytes(record[4 : 4 + length]))
        columns = _Columns(record[4 + length :])
        match fields.get("record"):
            case "head":
                read: Record = _head(fields)
            case "packs":
                read = _packs(fields, columns)
            case "folder":
                read = _folder(fields, columns)
            case _:
                raise _bad("an unknown kind of record")
        columns.end()
    except (struct.error, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad("a record is malformed") from error
    return read


class _Columns:
    """Reads columns one after the other, never beyond the record."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        if size < 0 or size > len(self._data) - self._at:
            raise _bad("a column that is longer than its record")
        self._at += size
        return self._data[self._at - size : self._at]

    def integers(self, count: int) -> Ints:
        """The next `count` 8-byte integers."""
        if not 0 <= count <= MAX_COLUMN:
            raise _bad("a column of an impossible length")
        return np.frombuffer(self.take(8 * count), dtype="<i8").astype(np.int64)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise _bad("something is left over after a record")


def _head(fields: dict[str, Any]) -> Head:
    if fields["version"] != VERSION or not 0 <= fields["depth"] <= MAX_DEPTH:
        raise _bad("a manifest of another version, or a chain that is too long")
    return Head(
        register=str(fields["register"]),
        kind=str(fields["kind"]),
        term=int(fields["term"]),
        sequence=int(fields["sequence"]),
        consistent_at=instants.from_text(fields["consistent_at"]),
        position=str(fields["position"]),
        parents=tuple(Part(_object_id(row["id"]), _object_size(row["size"])) for row in fields["parents"]),
        depth=int(fields["depth"]),
        id_key=unb64(fields["id_key"], size=32),
        index_key=unb64(fields["index_key"], size=32),
        environment=dict(fields["environment"]),
        gaps=tuple(Gap(unb64(row["path"]), str(row["why"])) for row in fields["gaps"]),
        gone=tuple(unb64(path) for path in fields["gone"]),
        totals={str(name): int(value) for name, value in fields["totals"].items()},
        root=bytes.fromhex(fields["root"]),
    )


def _packs(fields: dict[str, Any], columns: _Columns) -> PackTable:
    rows = int(fields["rows"])
    numbers = columns.integers(rows).tolist()
    ids = bytes(columns.take(32 * rows))
    sizes = columns.integers(rows).tolist()
    return PackTable(
        [
            Pack(ObjectId(ids[32 * row : 32 * row + 32].hex()), numbers[row], _object_size(sizes[row]))
            for row in range(rows)
        ]
    )


def _folder(fields: dict[str, Any], columns: _Columns) -> FolderChange:
    rows, runs = int(fields["rows"]), int(fields["runs"])
    blob = bytes(columns.take(int(fields["names"])))
    names = blob.split(b"\0")[:-1]
    if (
        len(names) != rows
        or (blob and not blob.endswith(b"\0"))
        or any(first >= second for first, second in pairwise(names))
    ):
        raise _bad("names that are not sorted, or not as many as rows")
    stats = np.zeros((rows, STATS), np.int64)
    stats[:, :TRAVELLING] = columns.integers(rows * TRAVELLING).reshape(TRAVELLING, rows).T
    page_bytes = columns.integers(rows)
    patched = np.frombuffer(columns.take(rows), np.uint8)
    counts = columns.integers(rows)
    refs, lens, ats = np.cumsum(columns.integers(runs)), columns.integers(runs), columns.integers(runs)
    digests = np.frombuffer(columns.take(DIGEST_BYTES * rows), np.uint8).reshape(rows, DIGEST_BYTES)
    # Each before their sum: sums of int64 wrap, and numpy trusts the counts that it is given.
    if not _within(counts, 0, runs) or counts.sum() != runs or not _within(lens, 1, MAX_CHUNKS):
        raise _bad("impossible runs")
    if not _within(refs, 0, MAX_REFERENCE) or not _within(ats, 0, MAX_PLACE) or lens.sum() > MAX_CHUNKS:
        raise _bad("impossible runs")
    if not _within(page_bytes, 0, MAX_PAGE_BYTES) or (patched > 1).any() or (stats[:, SIZE] < 0).any():
        raise _bad("impossible sizes")
    folder = Folder(
        unb64(fields["path"]), names, stats, page_bytes, counts, refs, lens, ats, digests,
        extras_from(fields["extras"], rows),
    )  # fmt: skip
    removed = [unb64(name) for name in fields["removed"]]
    return FolderChange(folder, patched, removed, bytes.fromhex(fields["digest"]))


def _within(values: Ints, lowest: int, highest: int) -> bool:
    return not ((values < lowest) | (values > highest)).any()


def _object_id(text: object) -> ObjectId:
    if not isinstance(text, str) or len(text) != 64 or len(bytes.fromhex(text)) != hashing.DIGEST_BYTES:
        raise _bad("a malformed object name")
    return ObjectId(text)


def _object_size(size: object) -> int:
    """Bounded, because an object is fetched whole."""
    if not isinstance(size, int) or not 0 < size <= container.MAX_OBJECT_BYTES:
        raise _bad("an object of an impossible size")
    return size


def _bad(why: str) -> Tampered:
    return Tampered(
        "manifest-invalid",
        "A sealed object holds something else than it should",
        why=why,
        hint="exclave verify   # then restore an earlier snapshot",
    )
