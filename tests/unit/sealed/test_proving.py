"""Proving: equal content passes, any difference is found, and order decides only whether a file is read back."""

from __future__ import annotations

import random

import pytest

from exclave.crypto import hashing
from exclave.sealed.chunking import EXTENT_BYTES
from exclave.sealed.proving import Prover

KEY = bytes(32)
SIZE = 2 * EXTENT_BYTES + 5000


def _content(size: int = SIZE) -> bytes:
    return random.Random(size).randbytes(size)


def _prover(data: bytes, cuts: list[int]) -> Prover:
    prover = Prover(KEY)
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    prover.wanted[7] = prover.combined([hashing.digest(piece, KEY) for piece in pieces])
    return prover


def _paged(data: bytes) -> Prover:
    return _prover(data, list(range(EXTENT_BYTES, len(data), EXTENT_BYTES)))


@pytest.mark.parametrize("step", [8192, 500_000, EXTENT_BYTES, 3 * EXTENT_BYTES])
@pytest.mark.parametrize("size", [SIZE, 2 * EXTENT_BYTES, 8192])
def test_pages_in_order_are_proved_without_reading_back(step: int, size: int) -> None:
    data = memoryview(_content(size))
    prover = _paged(bytes(data))
    for start in range(0, len(data), step):
        prover.wrote_pages(7, start, data[start : start + step])
    assert prover.finish({7: len(data)}) == []
    assert not prover.wrong
    assert not prover.wanted


def test_a_wrong_page_is_found() -> None:
    data = bytearray(_content())
    prover = _paged(bytes(data))
    data[-1] ^= 1
    prover.wrote_pages(7, 0, memoryview(bytes(data)))
    assert prover.finish({7: len(data)}) == []
    assert prover.wrong == {7}


@pytest.mark.parametrize("order", [[1, 0], [0], [0, 0, 1]], ids=["swapped", "not all", "twice"])
def test_pages_out_of_order_are_read_back(order: list[int]) -> None:
    data = memoryview(_content())
    prover = _paged(bytes(data))
    for half in order:
        middle = len(data) // 2
        prover.wrote_pages(7, half * middle, data[half * middle : (half + 1) * middle])
    assert prover.finish({7: len(data)}) == [7]
    assert 7 in prover.wanted


def test_reading_back_decides() -> None:
    data = _content()
    extents = [hashing.digest(data[at : at + EXTENT_BYTES], KEY) for at in range(0, len(data), EXTENT_BYTES)]
    prover = _paged(data)
    prover.read_back(7, extents)
    assert not prover.wrong
    prover = _paged(data)
    prover.read_back(7, extents[::-1])
    assert prover.wrong == {7}


def test_chunks_may_come_in_any_order_but_must_all_come() -> None:
    data = memoryview(_content())
    cuts = [100, 70_000, EXTENT_BYTES + 3]
    pieces = list(zip([0, *cuts], [*cuts, len(data)], strict=True))
    for chosen, wrong in ((pieces[::-1], set()), (pieces[1:], {7})):
        prover = _prover(bytes(data), cuts)
        for start, end in chosen:
            prover.wrote(7, start, data[start:end], [0, end - start])
        prover.finish({})
        assert prover.wrong == wrong


def test_a_file_of_one_chunk_is_decided_at_once() -> None:
    data = memoryview(_content(3000))
    prover = _prover(bytes(data), [])
    prover.wrote(7, 0, data, [0, 3000])
    assert not prover.wanted
    other = _prover(bytes(data), [])
    other.wrote(7, 0, memoryview(bytes(3000)), [0, 3000])
    other.finish({})
    assert other.wrong == {7}
