"""Cutting by content: golden cuts, that an insertion moves little, and that the compiled cutter is the one in use."""

from __future__ import annotations

import hashlib
import random

import pyfastcdc
import pytest

from exclave.sealed import chunking
from exclave.sealed.chunking import MAX_CHUNK_BYTES, MIN_CUT_BYTES, ContentCutter

KEY = bytes(range(32))


# SHA-256 of the list of cuts that pyfastcdc 0.3.1 makes of the noise below under KEY.
GOLDEN = "8b539a2c6b320c6028158a54e1e5b86f7d37897c9af422220e1ad9023a377a08"


def _noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def _cuts(data: bytes, key: bytes = KEY) -> list[int]:
    return list(ContentCutter(key).cut(memoryview(data), last=True))


def test_golden_cuts() -> None:
    """A release of the library that cuts elsewhere would send everything again: it must not pass unseen."""
    ends = _cuts(_noise(8 << 20))
    assert len(ends) == 24
    assert hashlib.sha256(repr(ends).encode()).hexdigest() == GOLDEN


def test_every_chunk_is_within_bounds_and_nothing_is_lost() -> None:
    for data in (_noise(5_000_000), bytes(5_000_000), _noise(1_048_577), b"ab" * 900_000):
        ends = _cuts(data)
        sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        assert ends[-1] == len(data)
        assert max(sizes) <= MAX_CHUNK_BYTES
        assert all(size >= MIN_CUT_BYTES for size in sizes[:-1])


def test_an_unfinished_chunk_is_kept_for_what_follows() -> None:
    data = _noise(6_000_000)
    whole = _cuts(data)
    cutter = ContentCutter(KEY)
    ends: list[int] = []
    start, read = 0, 0
    while read < len(data):
        read = min(read + 2_000_000, len(data))
        new = cutter.cut(memoryview(data)[start:read], last=read == len(data))
        ends += [start + end for end in new]
        start = ends[-1] if ends else 0
    assert ends == whole


def test_an_insertion_moves_only_the_chunks_around_it() -> None:
    data = _noise(12_000_000)
    changed = data[:5_000_000] + b"inserted" + data[5_000_000:]

    def chunks(content: bytes) -> set[bytes]:
        ends = _cuts(content)
        return {content[start:end] for start, end in zip([0, *ends], ends, strict=False)}

    assert len(chunks(changed) - chunks(data)) <= 3


def test_another_register_cuts_elsewhere() -> None:
    data = _noise(4_000_000)
    assert _cuts(data) != _cuts(data, bytes(32))


def test_the_slow_fallback_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy")
    monkeypatch.setattr(chunking, "FastCDC", type("FastCDC", (), {"__module__": "pyfastcdc.py.fastcdc"}))
    with pytest.raises(chunking.Misconfigured, match="compiled"):
        ContentCutter(KEY)
