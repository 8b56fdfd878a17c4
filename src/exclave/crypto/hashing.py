"""Hashes: SHA-256 names what is stored, keyed BLAKE3 names what is inside."""

from __future__ import annotations

import hashlib

from blake3 import blake3

from exclave.types import Buffer, ObjectId

DIGEST_BYTES = 32
CHUNK_ID_BYTES = 16

__all__ = ["CHUNK_ID_BYTES", "DIGEST_BYTES", "blake3", "derive", "digest", "object_id", "sha256"]


def sha256(data: Buffer) -> bytes:
    """32 bytes, FIPS 180-4."""
    return hashlib.sha256(data).digest()


def object_id(data: Buffer) -> ObjectId:
    """The name of a stored object: SHA-256 of its bytes, in hex (`sha256sum` gives the same)."""
    return ObjectId(hashlib.sha256(data).hexdigest())


def digest(data: Buffer, key: bytes) -> bytes:
    """Keyed BLAKE3, 32 bytes; its first 16 are a chunk id. `key` is 32 secret bytes."""
    return blake3(data, key=key).digest()


def derive(key: bytes, purpose: str) -> bytes:
    """A 32-byte sub-key of a 32-byte key for one purpose (BLAKE3 derive_key mode, purpose as its context)."""
    return blake3(key, derive_key_context=purpose).digest()
