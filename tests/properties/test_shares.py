"""Shares: any threshold of them give the secret, fewer fit every secret, and what does not belong is noticed."""

from __future__ import annotations

import itertools
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exclave.crypto import shares
from exclave.crypto.shares import Share, combine, inverse, multiply, split
from exclave.errors import Tampered

secrets = st.binary(min_size=16, max_size=40)


def slow_multiply(a: int, b: int) -> int:
    """Schoolbook: multiply the polynomials, then reduce."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(15, 7, -1):
        if product >> bit & 1:
            product ^= 0x11B << (bit - 8)
    return product


def test_the_field_is_rijndaels():
    assert all(multiply(a, b) == slow_multiply(a, b) for a in range(256) for b in range(256))
    assert all(multiply(a, inverse(a)) == 1 for a in range(1, 256))


@given(secret=secrets, data=st.data())
def test_any_threshold_of_shares_gives_the_secret(secret, data):
    count = data.draw(st.integers(2, 8))
    threshold = data.draw(st.integers(2, count))
    made = split(threshold, count, secret)
    chosen = data.draw(st.permutations(made))[: data.draw(st.integers(threshold, count))]
    assert combine(threshold, chosen) == secret


def test_one_share_of_two_takes_every_value_alike_whatever_the_secret():
    """Exhaustive over the random byte, for all 256 secret bytes at once (the first four carry the digest)."""
    secret = bytes(4) + bytes(range(256))
    seen = {(x, at): set() for x in range(3) for at in range(4, 260)}
    for value in range(256):
        for share in split(2, 3, secret, random=lambda size, value=value: bytes([value]) * size):
            for at in range(4, 260):
                seen[share.x, at].add(share.data[at])
    assert all(len(values) == 256 for values in seen.values())


@settings(max_examples=15)  # each tries 256 secrets
@given(secret=st.binary(min_size=32, max_size=32), data=st.data())
def test_one_share_too_few_fits_every_secret(secret, data):
    """Through m - 1 shares and any value of the secret's byte goes exactly one polynomial of the right degree."""
    threshold = data.draw(st.integers(2, 4))
    made = split(threshold, threshold, secret)
    held, missing = made[:-1], made[-1]
    at = data.draw(st.integers(0, 31))
    column = [Share(one.x, one.data[at : at + 1]) for one in held]
    others: set[int] = set()
    for candidate in range(256):
        value = shares._interpolate(missing.x, [*column, Share(255, bytes([candidate]))])
        others.add(value[0])
        again = shares._interpolate(255, [*column, Share(missing.x, bytes(value))])
        assert again[0] == candidate
    assert len(others) == 256


@given(secret=secrets, data=st.data())
def test_a_wrong_share_is_noticed(secret, data):
    made = split(3, 5, secret)
    chosen = data.draw(st.permutations(made))[: data.draw(st.integers(3, 5))]
    wrong = data.draw(st.integers(0, len(chosen) - 1))
    at, flip = data.draw(st.integers(0, len(secret) - 1)), data.draw(st.integers(1, 255))
    bad = bytearray(chosen[wrong].data)
    bad[at] ^= flip
    chosen[wrong] = Share(chosen[wrong].x, bytes(bad))
    with pytest.raises(Tampered, match="do not belong"):
        combine(3, chosen)


def test_shares_of_two_splits_do_not_join():
    secret = os.urandom(32)
    first, second = split(3, 5, secret), split(3, 5, secret)
    with pytest.raises(Tampered):
        combine(3, [first[0], first[1], second[2]])


def test_a_share_beyond_the_threshold_is_checked_too():
    made = split(2, 3, os.urandom(32))
    with pytest.raises(Tampered):
        combine(2, [made[0], made[1], Share(2, os.urandom(32))])


def test_the_threshold_cannot_be_talked_down():
    made = split(3, 5, os.urandom(32))
    with pytest.raises(Tampered):
        combine(2, made[:2])
    with pytest.raises(ValueError, match="at least"):
        combine(3, made[:2])


@pytest.mark.parametrize(
    "bad",
    [
        [Share(1, bytes(32)), Share(1, bytes(32))],
        [Share(1, bytes(32)), Share(2, bytes(31))],
        [Share(1, bytes(15)), Share(2, bytes(15))],
        [Share(1, bytes(32)), Share(255, bytes(32))],
        [Share(-1, bytes(32)), Share(2, bytes(32))],
    ],
)
def test_impossible_shares_are_refused(bad):
    with pytest.raises(ValueError, match="share"):
        combine(2, bad)


@pytest.mark.parametrize(("threshold", "count", "size"), [(1, 3, 32), (4, 3, 32), (2, 17, 32), (2, 3, 15)])
def test_impossible_splits_are_refused(threshold, count, size):
    with pytest.raises(ValueError, match="s"):
        split(threshold, count, bytes(size))


def test_every_pair_of_five_is_enough_when_two_are_asked():
    secret = os.urandom(32)
    for pair in itertools.combinations(split(2, 5, secret), 2):
        assert combine(2, pair) == secret


def test_a_share_is_not_shown():
    share = Share(3, b"\xab" * 32)
    assert "abab" not in repr(share)
    assert "\\xab" not in repr(share)


def test_multiplication_takes_the_same_steps_for_every_operand():
    """Tables and branches indexed by a secret can be seen through the cache and the clock."""

    def steps(a: int, b: int) -> list[int]:
        lines: list[int] = []

        def watch(frame, event, _argument):
            lines.extend([frame.f_lineno] if event == "line" else [])
            return watch

        sys.settrace(watch)
        try:
            multiply(a, b)
        finally:
            sys.settrace(None)
        return lines

    usual = steps(0, 0)
    assert all(steps(a, b) == usual for a in (0, 1, 2, 127, 128, 255) for b in (0, 1, 3, 128, 254, 255))
    tables = [value for value in vars(shares).values() if isinstance(value, bytes | list | tuple | dict)]
    assert all(len(table) < 255 for table in tables if table is not vars(shares)["__builtins__"])
