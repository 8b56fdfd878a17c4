"""What was sealed is opened again before its key is forgotten: a machine that fails between the two is found out."""

from __future__ import annotations

import pytest
from cryptography.cobblestone import Cobblestone256Encryptor

from exclave.crypto import open as crypto_open
from exclave.crypto import seal, suite

KEY = bytes(32)


def _seal(plain: bytes) -> bytes:
    out = bytearray(suite.sealed_size(len(plain)))
    seal.seal_into(plain, memoryview(out), KEY, b"here", bytearray(len(plain) + 16384))
    return bytes(out)


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 16385, 100_000])
def test_what_is_sealed_opens_again(size: int) -> None:
    plain = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert bytes(crypto_open.open_body(_seal(plain), KEY, b"here")) == plain


@pytest.mark.parametrize("at", [0, 16384, 99_999], ids=["first byte", "second unit", "last byte"])
def test_a_machine_that_seals_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    class Faulty:
        def __init__(self, key: bytes, context: bytes) -> None:
            self._real = Cobblestone256Encryptor(key, context)

        def update_into(self, plain: bytes, out: memoryview) -> int:
            flipped = bytearray(plain)
            flipped[at] ^= 1
            return self._real.update_into(flipped, out)

        def finalize(self) -> bytes:
            return self._real.finalize()

    monkeypatch.setattr(seal, "Cobblestone256Encryptor", Faulty)
    with pytest.raises(RuntimeError, match="does not open again"):
        _seal(bytes(100_000))
