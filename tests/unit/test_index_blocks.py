"""The format of index runs: what is refused, what the checksums notice, which runs are joined."""

from __future__ import annotations

import numpy as np
import pytest

from exclave.errors import Tampered
from exclave.sealed.index import blocks, merging
from exclave.sealed.index.blocks import BLOCK_BYTES, BLOCK_RECORDS, Records
from exclave.sealed.index.runs import Builder, Run


def _records(count: int, *, seed: int = 1) -> Records:
    ids = np.random.default_rng(seed).integers(0, 1 << 64, (count, 2), dtype=np.uint64)
    return blocks.sort(Records(ids[:, 0], ids[:, 1], np.arange(count, dtype=np.int64)))


def _run_bytes(records: Records, seed: bytes = bytes(16)) -> bytes:
    builder = Builder(seed)
    return builder.add(records).tobytes() + b"".join(builder.finish())


def _run(data: bytes) -> Run:
    return Run(lambda offset, length: data[offset : offset + length], len(data))


def _read_all(data: bytes, records: Records) -> None:
    run = _run(data)
    run.load_filters()
    run.find(records.high, records.low)


@pytest.mark.parametrize("count", [1, BLOCK_RECORDS - 1, BLOCK_RECORDS, BLOCK_RECORDS + 1, 1000])
@pytest.mark.parametrize("filtered", [False, True])
def test_every_record_is_found_and_no_other(count: int, *, filtered: bool) -> None:
    records, strangers = _records(count), _records(500, seed=2)
    run = _run(_run_bytes(records))
    if filtered:
        run.load_filters()
    assert run.records == count
    assert np.array_equal(run.find(records.high, records.low), records.references)
    assert (run.find(strangers.high, strangers.low) == -1).all()
    assert (run.find(records.high, ~records.low) == -1).all()
    few = slice(0, 10)  # these go another way
    assert np.array_equal(run.find(records.high[few], records.low[few]), records.references[few])
    assert (run.find(strangers.high[few], strangers.low[few]) == -1).all()
    assert (run.find(records.high[few], ~records.low[few]) == -1).all()


def test_ids_of_zeros_and_ones_are_ordinary() -> None:
    edge = np.array([0, 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64)
    run = _run(_run_bytes(Records(edge[:1], edge[:1], np.array([7], dtype=np.int64))))
    assert run.find(edge, edge).tolist() == [7, -1]
    run = _run(_run_bytes(Records(edge, edge, np.array([7, 8], dtype=np.int64))))
    assert run.find(edge, edge).tolist() == [7, 8]


def test_filters_spare_most_reads_of_unknown_ids() -> None:
    data = _run_bytes(_records(20_000))
    reads: list[int] = []

    def read(offset: int, length: int) -> bytes:
        reads.append(length)
        return data[offset : offset + length]

    run, strangers = Run(read, len(data)), _records(1000, seed=3)
    run.load_filters()
    reads.clear()
    for at in range(1000):
        run.find(strangers.high[at : at + 1], strangers.low[at : at + 1])
    assert 100 < len(reads) < 330  # a quarter


def test_stretches_of_any_length_make_the_same_run() -> None:
    records = _records(1000)
    builder = Builder(bytes(16))
    data = b""
    for start in range(0, 1000, 7):
        part = slice(start, start + 7)
        data += builder.add(
            Records(records.high[part], records.low[part], records.references[part])
        ).tobytes()
    assert data + b"".join(builder.finish()) == _run_bytes(records)


def test_any_flipped_bit_or_lost_byte_is_noticed() -> None:
    records = _records(400)
    data = _run_bytes(records)
    random = np.random.default_rng(5)
    for place in random.integers(0, len(data), 300).tolist():
        bad = bytearray(data)
        bad[place] ^= 1 << int(random.integers(0, 8))
        with pytest.raises(Tampered):
            _read_all(bytes(bad), records)
        with pytest.raises(Tampered):
            _run(data[:place])


def test_a_block_of_another_place_or_another_run_does_not_fit() -> None:
    records = _records(400)
    data = _run_bytes(records)
    swapped = data[BLOCK_BYTES : 2 * BLOCK_BYTES] + data[:BLOCK_BYTES] + data[2 * BLOCK_BYTES :]
    foreign = _run_bytes(records, b"another seed 16.")[:BLOCK_BYTES] + data[BLOCK_BYTES:]
    for bad in (swapped, foreign):
        with pytest.raises(Tampered):
            _run(bad).find(records.high, records.low)


@pytest.mark.parametrize("data", [b"", b"x", bytes(96), b"exclave-index-1\n" + bytes(80), bytes(10_000)])
def test_foreign_bytes_are_no_run(data: bytes) -> None:
    with pytest.raises(Tampered):
        _run(data)


def test_of_equal_ids_the_newest_survives_a_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "STEP_BLOCKS", 2)
    records = _records(3000)
    older = _run(_run_bytes(Records(records.high, records.low, records.references)))
    some = Records(records.high[::3], records.low[::3], records.references[::3] + 10_000)
    merged = list(merging.merge([older, _run(_run_bytes(some))]))
    expected = records.references.copy()
    expected[::3] += 10_000
    assert len(merged) > 5
    assert np.array_equal(np.concatenate([part.high for part in merged]), records.high)
    assert np.array_equal(np.concatenate([part.references for part in merged]), expected)


def test_runs_stay_few_and_are_not_rewritten_too_often() -> None:
    sizes: list[int] = []
    rewritten = 0
    for _ in range(1000):
        sizes.append(1)
        if count := merging.newest_to_join(sizes):
            total = sum(sizes[-count:])
            sizes[-count:] = [total]
            rewritten += total
        assert len(sizes) <= merging.MAX_RUNS
    assert rewritten / 1000 < 9
