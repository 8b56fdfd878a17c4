"""Close: fresh content keys, their capsules to recipients, and the sealed body. Nothing here can open.

Suite 1: X-Wing HPKE (RFC 9180 base mode with KEM 0x647a, HKDF-SHA256, AES-256-GCM) for the capsule and
Cobblestone-256 (C2SP chunked encryption, 16 KiB units, key commitment) for the body.
"""

from __future__ import annotations

import hashlib
import itertools
import os

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PublicKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from exclave.codec import lengths_prefixed
from exclave.crypto.suite import CONTENT_KEY_BYTES, PUBLIC_KEY_BYTES
from exclave.types import Buffer

HPKE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_counter = itertools.count()


def public_key(raw: bytes) -> MLKEM768X25519PublicKey:
    """The X-Wing public key in `raw` (1216 bytes). Raises ValueError for any other length or content."""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ValueError("an X-Wing public key has 1216 bytes")
    return MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:1184]),
        x25519.X25519PublicKey.from_public_bytes(raw[1184:]),
    )


def recipient_id(raw_public_key: bytes) -> bytes:
    """16 bytes that name a recipient's key: the start of its SHA-256."""
    return hashlib.sha256(raw_public_key).digest()[:16]


def fresh_content_key(boot_id: bytes, content: bytes) -> bytes:
    """32 secret bytes for one message, never used twice.

    Hedged: `content` (a digest of what will be sealed) goes in beside fresh randomness, so a cloned machine
    whose generator repeats itself still gets another key for other content.
    """
    ikm = lengths_prefixed(boot_id, next(_counter).to_bytes(8, "big"), str(os.getpid()).encode(), content)
    return HKDF(hashes.SHA256(), CONTENT_KEY_BYTES, os.urandom(32), b"exclave/content-key/v1").derive(ikm)


def capsule(content_key: bytes, raw_public_key: bytes, info: bytes) -> bytes:
    """`content_key` sealed to a recipient, bound to `info`: 1168 bytes."""
    return HPKE.encrypt(content_key, public_key(raw_public_key), info=info)


def seal_into(plain: Buffer, out: memoryview, key: bytes, context: bytes, scratch: bytearray) -> None:
    """Seal `plain` into `out`, which has exactly `sealed_size(len(plain))` bytes; then check that it opens again.

    The check (decrypt in memory, compare) is mandatory: the writer can never test-decrypt later. It uses
    `scratch`, of at least `len(plain) + 16 KiB` bytes.
    """
    encryptor = Cobblestone256Encryptor(key, context)
    written = encryptor.update_into(plain, out)
    tail = encryptor.finalize()
    out[written : written + len(tail)] = tail
    decryptor = Cobblestone256Decryptor(key, context)
    opened = decryptor.update_into(out[: written + len(tail)], scratch)
    rest = decryptor.finalize()
    # A bytearray on the left compares with memcmp; two memoryviews compare byte by byte, three times slower.
    same = scratch[:opened] == memoryview(plain)[:opened] and bytearray(rest) == memoryview(plain)[opened:]
    if written + len(tail) != len(out) or opened + len(rest) != len(plain) or not same:
        raise RuntimeError("what was just sealed does not open again: memory or processor fault")


def seal_to(secret: bytes, raw_public_key: bytes, info: bytes) -> bytes:
    """A short secret (a share) sealed to a recipient's key, bound to `info`; 1136 bytes more than `secret`."""
    return HPKE.encrypt(secret, public_key(raw_public_key), info=info)
