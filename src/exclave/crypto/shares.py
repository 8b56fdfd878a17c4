"""Shamir's secret sharing over GF(256), by bytes, in the field and with the digest of SLIP-39.

The field is Rijndael's (x^8 + x^4 + x^3 + x + 1). The secret lies at x = 255 and a digest share at x = 254, so a
wrong share shows when combining. Multiplication runs the same eight steps for every operand: no tables indexed by
secrets and no branch on them (CVE-2023-25000 read such tables through the cache).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from exclave.errors import Tampered
from exclave.types import Buffer

MAX_SHARES = 16
MIN_SECRET_BYTES = 16
_DIGEST_BYTES = 4
_DIGEST_AT = 254
_SECRET_AT = 255

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Share:
    """One point of every byte's polynomial: `x` is public (0 to 15), `data` is secret and as long as the secret."""

    x: int
    data: bytes = field(repr=False)


def split(threshold: int, count: int, secret: Buffer, *, random: Random = os.urandom) -> list[Share]:
    """`count` shares of which any `threshold` give `secret` back and fewer say nothing about it.

    2 <= threshold <= count <= 16; the secret has at least 16 bytes. Raises ValueError otherwise.
    """
    if not 2 <= threshold <= count <= MAX_SHARES:
        raise ValueError("shares: 2 <= threshold <= count <= 16")
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError("a secret to share has at least 16 bytes")
    shares = [Share(x, random(len(secret))) for x in range(threshold - 2)]
    key = random(len(secret) - _DIGEST_BYTES)
    base = [*shares, Share(_DIGEST_AT, _digest(key, secret) + key), Share(_SECRET_AT, bytes(secret))]
    return shares + [Share(x, bytes(_interpolate(x, base))) for x in range(threshold - 2, count)]


def combine(threshold: int, shares: Sequence[Share]) -> bytearray:
    """The secret, in memory that the caller can overwrite. Every share given takes part, also beyond the threshold.

    Raises ValueError for fewer than `threshold` shares, a doubled x or unequal lengths, and Tampered when the shares
    do not belong together. The digest finds mistakes, not attackers: compare what the secret is for as well.
    """
    if threshold < 2 or len(shares) < threshold or len({share.x for share in shares}) != len(shares):
        raise ValueError("combining takes at least `threshold` shares, each x once")
    lengths = {len(share.data) for share in shares}
    if len(lengths) != 1 or min(lengths) < MIN_SECRET_BYTES or not all(0 <= s.x < MAX_SHARES for s in shares):
        raise ValueError("shares of one secret have one length and an x from 0 to 15")
    base, further = shares[:threshold], shares[threshold:]
    secret, digest = _interpolate(_SECRET_AT, base), _interpolate(_DIGEST_AT, base)
    good = hmac.compare_digest(_digest(digest[_DIGEST_BYTES:], secret), bytes(digest[:_DIGEST_BYTES]))
    for share in further:
        good &= hmac.compare_digest(_interpolate(share.x, base), share.data)
    if not good:
        secret[:] = bytes(len(secret))
        raise Tampered(
            "shares-do-not-join",
            "These shares do not belong to one secret",
            why="at least one of them is wrong or from another set",
            hint="exclave explain shares-do-not-join",
        )
    return secret


def multiply(a: int, b: int) -> int:
    """Product in GF(256), always in eight steps."""
    product = 0
    for _ in range(8):
        product ^= -(b & 1) & a
        a = ((a << 1) ^ (-(a >> 7) & 0x11B)) & 0xFF
        b >>= 1
    return product


def inverse(a: int) -> int:
    """a^254: the multiplicative inverse, and 0 for 0."""
    result = 1
    for _ in range(7):
        a = multiply(a, a)
        result = multiply(result, a)
    return result


def _interpolate(x: int, points: Sequence[Share]) -> bytearray:
    """The value at `x` of the polynomial through `points` (Lagrange), for every byte."""
    value = bytearray(len(points[0].data))
    for point in points:
        weight = 1
        for other in points:
            if other.x != point.x:  # only the public x decide
                weight = multiply(weight, multiply(x ^ other.x, inverse(point.x ^ other.x)))
        for at, byte in enumerate(point.data):
            value[at] ^= multiply(weight, byte)
    return value


def _digest(key: Buffer, secret: Buffer) -> bytes:
    return hmac.digest(bytes(key), bytes(secret), "sha256")[:_DIGEST_BYTES]
