"""Opening what home sealed for itself under its own index key; no register content is ever sealed this way."""

from __future__ import annotations

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag

from exclave.errors import Tampered
from exclave.types import Buffer


def open_own(sealed: Buffer, key: bytes, context: bytes) -> bytes:
    """The plaintext of a body sealed under a symmetric key. Raises Tampered."""
    decryptor = Cobblestone256Decryptor(key, context)
    try:
        return decryptor.update(sealed) + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise Tampered(
            "index-broken",
            "A part of home's own index does not open",
            why="it was altered, or home's index key is another one",
            hint="exclave verify",
        ) from error
