"""The one suite's number and sizes: what a reader of containers must know, and no way to seal or to open."""

from __future__ import annotations

SUITE_ID = 1
PUBLIC_KEY_BYTES = 1216  # ML-KEM-768 1184, X25519 32
CAPSULE_BYTES = 1168  # KEM 1120, content key 32, tag 16
CONTENT_KEY_BYTES = 32
UNIT_BYTES = 16384


def sealed_size(plain_bytes: int) -> int:
    """Bytes of the sealed body of `plain_bytes` bytes: salt 24, commitment 32, a tag of 16 per 16 KiB unit."""
    return 56 + plain_bytes + 16 * (plain_bytes // UNIT_BYTES + 1)
