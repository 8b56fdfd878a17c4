"""Index parts: home's own list of the chunks in each pack, so that deduplication survives the loss of its disk."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from exclave import codec
from exclave.crypto.hashing import CHUNK_ID_BYTES
from exclave.crypto.symmetric import open_own
from exclave.errors import Tampered
from exclave.sealed import container
from exclave.sealed.container import body_context
from exclave.sealed.folders import Ints
from exclave.sealed.packing import read_contents, read_frame
from exclave.sealed.packstream import SLOT_BITS

_PACKS = 1 << 63 - SLOT_BITS  # references are 63 bits


def references(pack: int, chunks: int) -> Ints:
    """References of all chunks of a pack, in slot order."""
    return np.arange(chunks, dtype=np.int64) + (pack << SLOT_BITS)


def read(data: bytes, index_key: bytes) -> Iterator[tuple[bytes, Ints]]:
    """(ids, references) of each pack in an index part. Raises Tampered."""
    header = container.parse(data)
    if header.kind != container.INDEX or len(data) != header.object_bytes:
        raise _bad("it is not an index part")
    body = memoryview(data)[header.header_bytes :]
    plain = memoryview(open_own(body, index_key, body_context(header.fixed())))
    contents = read_contents(plain)
    for frame in range(len(contents.frames)):
        raw = read_frame(plain, contents, frame)
        for slot in range(*contents.slots_of(frame)):
            start = int(contents.starts[slot])
            yield records_of(bytes(raw[start : start + int(contents.slots[slot])]))


def records_of(record: bytes) -> tuple[bytes, Ints]:
    """(ids, references) of the pack in one record. Raises Tampered."""
    try:
        (length,) = struct.unpack_from(">I", record)
        fields = codec.decode(record[4 : 4 + length])
        ids = record[4 + length :]
        pack, rows = int(fields["pack"]), int(fields["rows"])
    except (struct.error, KeyError, TypeError, ValueError) as error:
        raise _bad("a record is malformed") from error
    if fields.get("record") != "ids" or len(ids) != rows * CHUNK_ID_BYTES or rows >= 1 << SLOT_BITS:
        raise _bad("a record is malformed")
    if not 0 <= pack < _PACKS:
        raise _bad("a record is malformed")
    return ids, references(pack, rows)


def _bad(why: str) -> Tampered:
    return Tampered(
        "index-broken", "A part of home's own index cannot be read", why=why, hint="exclave verify"
    )
