"""What a run looks like on disk: blocks of sorted records, two small tables about them, a footer.

    blocks    B * 4096 bytes   512 words (u64le) each: 170 first halves of ids, 170 second halves, 170 references,
                               the block's number, its checksum
    firsts    B * 8 bytes      the first half of the first id of every block: says which block an id would be in
    filters   B * 64 bytes     per block a Bloom filter of 512 bits: spares three reads of four for unknown ids
    footer    96 bytes         `FOOTER`

An id half is 8 bytes of the id as a little-endian integer; records are sorted by (first half, second half) as
integers and unique. The last block is filled up with `PADDING`. A block is one page of the file, so that looking
for an id costs one read.

A block's checksum is a multilinear hash: the sum of its words, each times an odd weight, modulo 2**64. The weights
come from the run's random seed. Any change within one word is always found, others but for about one in 2**60, and
a block of another run or from another place does not fit. It costs a twentieth of a cryptographic hash, and the
index needs none: whoever can write home's disk can do worse.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exclave.crypto.hashing import sha256
from exclave.errors import Tampered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exclave.types import Buffer

ID_BYTES = 16
RECORD_BYTES = 24
BLOCK_BYTES = 4096
BLOCK_WORDS = BLOCK_BYTES // 8
BLOCK_RECORDS = 170
FIRST_BYTES = 8
FILTER_BYTES = 64
SEED_BYTES = 16
MAX_RECORDS = 1 << 40  # bounds what a footer may ask for

_PLACE = 3 * BLOCK_RECORDS  # word that holds the block's number
_SUM = _PLACE + 1  # word that holds the checksum
_PADDING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)  # as a reference it reads -1, which means unknown
_FILTER_BITS = 8 * FILTER_BYTES

_MAGIC = b"exclave-index-1\n"
# magic, seed, records, blocks, digests of firsts, of filters, of the footer up to here
FOOTER = struct.Struct("<16s16sQQ16s16s16s")
FOOTER_BYTES = FOOTER.size


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Columns of equal length: halves of ids (uint64) and references (int64)."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    references: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.high)


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of a run says about it."""

    seed: bytes
    records: int
    blocks: int
    firsts_digest: bytes
    filters_digest: bytes

    def pack(self) -> bytes:
        """FOOTER_BYTES bytes that vouch for themselves."""
        head = FOOTER.pack(
            _MAGIC, self.seed, self.records, self.blocks, self.firsts_digest, self.filters_digest, bytes(16)
        )[:-16]
        return head + sha256(head)[:16]


def halves(ids: Buffer) -> NDArray[np.uint64]:
    """Concatenated ids as an array of shape (n, 2)."""
    return np.frombuffer(ids, dtype="<u8").reshape(-1, 2)


def sort(records: Records) -> Records:
    """Sorted by id. Of records with the same id the last one stays."""
    # A stable sort, because what comes here is mostly a few sorted stretches, which it merges four times faster.
    order = np.argsort(records.high, kind="stable")
    high = records.high[order]
    if bool((high[1:] == high[:-1]).any()):
        order = np.lexsort((records.low, records.high))  # stable too, so the last of equals is the latest
        high, low = records.high[order], records.low[order]
        keep = np.append((high[1:] != high[:-1]) | (low[1:] != low[:-1]), True)
        order = order[keep]
        high = records.high[order]
    return Records(high, records.low[order], records.references[order])


def weights(seed: bytes) -> NDArray[np.uint64]:
    """The odd factors of a run's checksums, one for each word before the checksum."""
    stream = [sha256(seed + bytes([count])) for count in range(-(-8 * _SUM // 32))]
    return np.frombuffer(b"".join(stream), dtype="<u8")[:_SUM] | np.uint64(1)


def encode(records: Records, number: int, factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Blocks of shape (b, 512) of sorted `records`, the first of which is block `number` of its run."""
    count = -(-len(records) // BLOCK_RECORDS)
    words = np.empty((count, BLOCK_WORDS), dtype="<u8")
    padded = np.full(count * BLOCK_RECORDS, _PADDING)
    for place, column in enumerate((records.high, records.low, records.references.view(np.uint64))):
        padded[: len(records)] = column
        padded[len(records) :] = _PADDING
        words[:, place * BLOCK_RECORDS : (place + 1) * BLOCK_RECORDS] = padded.reshape(count, BLOCK_RECORDS)
    words[:, _PLACE] = np.arange(number, number + count, dtype=np.uint64)
    words[:, _SUM] = _sums(words, factors)
    return words


def decode(data: Buffer, numbers: NDArray[np.int64], factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The blocks `numbers` out of their bytes. Raises Tampered unless each is the one that was written there."""
    if len(data) != len(numbers) * BLOCK_BYTES:
        raise damaged("a run is shorter than its footer says")
    words = np.frombuffer(data, dtype="<u8").reshape(-1, BLOCK_WORDS)
    whole = (words[:, _PLACE] == numbers.astype(np.uint64)) & (words[:, _SUM] == _sums(words, factors))
    if not bool(whole.all()):
        raise damaged("a block does not match its checksum")
    return words


def highs(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """First halves of the ids in `words`, one after the other (padding included, which sorts last)."""
    return words[:, :BLOCK_RECORDS].ravel()


def lows(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Second halves, likewise."""
    return words[:, BLOCK_RECORDS : 2 * BLOCK_RECORDS].ravel()


def references(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """References, likewise; -1 for padding."""
    return words[:, 2 * BLOCK_RECORDS : _PLACE].ravel().view(np.int64)


def filters(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """The Bloom filters of blocks, shape (b, 64)."""
    low = words[:, BLOCK_RECORDS : 2 * BLOCK_RECORDS]
    bits = np.zeros((len(words), _FILTER_BITS), dtype=np.uint8)
    rows = np.arange(len(words))[:, None]
    for bit in _filter_bits(low):
        bits[rows, bit] = 1
    return np.packbits(bits, axis=1, bitorder="little")


def may_hold(
    rows: NDArray[np.uint8], blocks: NDArray[np.int64], low: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Whether block `blocks[i]`, by the filters `rows` of the whole run, may hold an id with second half `low[i]`."""
    answer = np.ones(len(low), dtype=np.bool_)
    for bit in _filter_bits(low):
        answer &= (rows[blocks, bit >> 3] >> (bit & 7).astype(np.uint8)) & 1 != 0
    return answer


def may_hold_one(rows: bytes, block: int, low: int) -> bool:
    """The same for one id; `rows` as they are on disk."""
    start, mask = block * FILTER_BYTES, _FILTER_BITS - 1
    first, second = low & mask, low >> 9 & mask
    return bool(rows[start + (first >> 3)] >> (first & 7) & rows[start + (second >> 3)] >> (second & 7) & 1)


def read_footer(data: Buffer, size_bytes: int) -> Footer:
    """The footer out of the last bytes of a run of `size_bytes`. Raises Tampered when it is not that of this file."""
    if len(data) != FOOTER_BYTES:
        raise damaged("too short")
    magic, seed, records, count, first, filtered, own = FOOTER.unpack(data)
    if magic != _MAGIC or sha256(data[:-16])[:16] != own:
        raise damaged("no valid footer")
    if records > MAX_RECORDS or count != -(-records // BLOCK_RECORDS) or size_bytes != run_bytes(count):
        raise damaged("its length is not what its footer says")
    return Footer(seed, records, count, first, filtered)


def run_bytes(block_count: int) -> int:
    """Size of a run of so many blocks."""
    return block_count * (BLOCK_BYTES + FIRST_BYTES + FILTER_BYTES) + FOOTER_BYTES


def damaged(why: str) -> Tampered:
    """The error of a run that cannot be trusted; its owner drops the run, which costs space abroad, never content."""
    return Tampered("index-run-damaged", "A part of home's index is damaged", why=why, hint="exclave doctor")


def _filter_bits(low: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    mask = np.uint64(_FILTER_BITS - 1)
    return (low & mask).astype(np.int64), ((low >> np.uint64(9)) & mask).astype(np.int64)


def _sums(words: NDArray[np.uint64], factors: NDArray[np.uint64]) -> NDArray[np.uint64]:
    sums: NDArray[np.uint64] = np.einsum("ij,j->i", words[:, :_SUM], factors)
    return sums
