"""Frames of slots: what goes in comes out, and a hostile table of contents is refused."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exclave.errors import Tampered
from exclave.sealed import container
from exclave.sealed.packing import Packer, read_contents, read_frame

CAPACITY = 1 << 20


def _packed(chunks: list[bytes], frame_bytes: int = 4096) -> memoryview:
    plain = bytearray(CAPACITY)
    packer = Packer(plain, frame_bytes)
    for slot, chunk in enumerate(chunks):
        assert packer.fits(len(chunk))
        assert packer.add(chunk) == slot
    return memoryview(plain)[: packer.close()]


def _unpacked(plain: memoryview) -> list[bytes]:
    contents = read_contents(plain)
    chunks: list[bytes] = []
    for frame in range(len(contents.frames)):
        raw = read_frame(plain, contents, frame)
        for slot in range(*contents.slots_of(frame)):
            start = int(contents.starts[slot])
            chunks.append(bytes(raw[start : start + int(contents.slots[slot])]))
    return chunks


@given(st.lists(st.binary(max_size=9000), max_size=40))
def test_what_is_packed_can_be_unpacked(chunks: list[bytes]) -> None:
    plain = _packed(chunks)
    assert len(plain) == container.size_class(len(plain))
    assert _unpacked(plain) == chunks


def test_incompressible_chunks_fill_a_pack_and_no_more_fit() -> None:
    packer = Packer(bytearray(CAPACITY), 512 << 10)
    count = 0
    while packer.fits(64 << 10):
        packer.add(os.urandom(64 << 10))
        count += 1
    assert count == CAPACITY // (64 << 10) - 1
    assert packer.close() == CAPACITY


def test_memory_may_be_reused_after_settle() -> None:
    plain = bytearray(CAPACITY)
    packer = Packer(plain, 512 << 10)
    memory = bytearray(b"first" * 100)
    packer.add(memoryview(memory))
    packer.settle()
    memory[:] = bytes(len(memory))
    assert _unpacked(memoryview(plain)[: packer.close()]) == [b"first" * 100]


@pytest.mark.parametrize(
    ("where", "value"),
    [(0, 1 << 21), (1, 1 << 25), (2, 1 << 31), (3, 1 << 30), (4, 1 << 30), (5, 7), (6, 1 << 30)],
    ids=["frames", "slots", "offset", "stored", "raw", "first", "slot"],
)
def test_impossible_tables_are_refused(where: int, value: int) -> None:
    plain = bytearray(_packed([b"x" * 100]))
    table = len(plain) - 8 - 28  # 2 counts, 4 frame fields, 1 slot: too small to compress
    assert struct.unpack_from(">II", plain, len(plain) - 8) == (28, 28)
    struct.pack_into("<I", plain, table + 4 * where, value)
    with pytest.raises(Tampered):
        _unpacked(memoryview(plain))


def test_a_decompression_bomb_is_refused_before_memory_is_taken() -> None:
    plain = bytearray(_packed([bytes(500_000)], frame_bytes=1 << 20))
    at = bytes(plain).index(b"\x28\xb5\x2f\xfd")
    plain[at + 4] ^= 0x40  # another frame content size than the table says
    with pytest.raises(Tampered):
        _unpacked(memoryview(plain))


def test_size_classes_waste_at_most_an_eighth() -> None:
    for wanted in [1, 4096, 4097, 5000, 65_537, (16 << 20) - 1, 16 << 20, (16 << 20) + 1]:
        size = container.size_class(wanted)
        assert size >= wanted
        assert size == 4096 or size - wanted <= wanted / 8
        assert container.size_class(size) == size
