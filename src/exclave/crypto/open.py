"""Open: private keys from seeds, content keys out of capsules, bodies. Only `sealed.opening` and custody come here."""

from __future__ import annotations

import hashlib

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey

from exclave.crypto.seal import HPKE
from exclave.crypto.suite import CAPSULE_BYTES, CONTENT_KEY_BYTES, UNIT_BYTES
from exclave.errors import Tampered
from exclave.types import Buffer

SEED_BYTES = 32

PrivateKey = MLKEM768X25519PrivateKey


def private_key(seed: Buffer) -> PrivateKey:
    """The X-Wing private key grown from a 32-byte seed (draft-connolly-cfrg-xwing-kem, section 5.2)."""
    if len(seed) != SEED_BYTES:
        raise ValueError("an X-Wing seed has 32 bytes")
    grown = hashlib.shake_256(seed).digest(96)
    return MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(grown[:64]),
        x25519.X25519PrivateKey.from_private_bytes(grown[64:]),
    )


def public_key_of(seed: Buffer) -> bytes:
    """The raw public key (1216 bytes) that belongs to a seed."""
    grown = hashlib.shake_256(seed).digest(96)
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(grown[:64]).public_key().public_bytes_raw()
    return kem + x25519.X25519PrivateKey.from_private_bytes(grown[64:]).public_key().public_bytes_raw()


def open_capsule(capsule: bytes, key: MLKEM768X25519PrivateKey, info: bytes) -> bytes:
    """The content key (32 bytes) in a capsule. Raises Tampered when key, capsule and `info` do not belong together."""
    if len(capsule) != CAPSULE_BYTES:
        raise _wrong("a capsule of another length")
    content_key = open_sealed(capsule, key, info)
    if len(content_key) != CONTENT_KEY_BYTES:
        raise _wrong("a content key of another length")
    return content_key


def open_sealed(sealed: bytes, key: MLKEM768X25519PrivateKey, info: bytes) -> bytes:
    """What `crypto.seal.seal_to` sealed to this key under `info`. Raises Tampered."""
    try:
        return HPKE.decrypt(sealed, key, info=info)
    except (InvalidTag, ValueError) as error:
        raise _wrong("it was sealed for another key, object or purpose, or it was altered") from error


def open_body(sealed: Buffer, key: bytes, context: bytes) -> memoryview:
    """The plaintext of a sealed body. Raises Tampered for any altered, truncated or foreign byte."""
    out = bytearray(len(sealed) + UNIT_BYTES)
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        opened = decryptor.update_into(sealed, out)
        rest = decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise _wrong("its body was altered, cut short, or belongs elsewhere") from error
    out[opened : opened + len(rest)] = rest
    return memoryview(out)[: opened + len(rest)]


def _wrong(why: str) -> Tampered:
    return Tampered(
        "seal-broken",
        "A sealed object does not open",
        why=why,
        hint="exclave verify   # names the object; another embassy may hold a good copy",
    )
