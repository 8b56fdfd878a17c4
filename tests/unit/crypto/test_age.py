"""age files and keys: what is not exactly one is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exclave.crypto import age
from exclave.crypto.open import public_key_of
from exclave.errors import Tampered

SEED = bytes(range(32))
PUBLIC = public_key_of(SEED)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072])
def test_what_was_encrypted_comes_back(size):
    plain = os.urandom(size)
    assert age.decrypt(age.encrypt(plain, [PUBLIC]), SEED) == plain


def test_each_recipient_can_open_and_nobody_else():
    other = os.urandom(32)
    data = age.encrypt(b"both", [public_key_of(other), PUBLIC])
    assert age.decrypt(data, SEED) == age.decrypt(data, other) == b"both"
    with pytest.raises(Tampered, match="age file"):
        age.decrypt(data, os.urandom(32))


def test_a_file_cut_at_a_chunk_is_noticed():
    data = age.encrypt(bytes(65536 * 2), [PUBLIC])
    start = len(data) - 2 * (65536 + 16)
    with pytest.raises(Tampered):
        age.decrypt(data[: start + 65536 + 16], SEED)


def test_every_cut_is_noticed():
    data = age.encrypt(b"short", [PUBLIC])
    for end in range(len(data)):
        with pytest.raises(Tampered):
            age.decrypt(data[:end], SEED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"age-encryption.org/v1", b"age-encryption.org/v2"),
        (b"-> mlkem768x25519 ", b"-> mlkem768x25519  "),
        (b"-> mlkem768x25519 ", b"-> mlkem768x25519 extra "),
        (b"-> mlkem768x25519 ", b"-> X25519 "),
        (b"-> mlkem768x25519 ", b"->  "),
        (b"\n--- ", b"\n---  "),
        (b"\n--- ", b"\n---"),
        (b"\n--- ", b"=\n--- "),
    ],
)
def test_other_spellings_of_the_header_are_refused(old, new):
    data = age.encrypt(b"x", [PUBLIC])
    assert old in data
    with pytest.raises(Tampered):
        age.decrypt(data.replace(old, new, 1), SEED)


def test_base64_has_one_spelling():
    """The last letter of 32 bytes carries two unused bits; a lenient reader takes four spellings of one file."""
    data = bytearray(age.encrypt(b"x", [PUBLIC]))
    last = data.index(b"\n", data.index(b"\n---") + 1) - 1
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    data[last] = alphabet[alphabet.index(data[last]) ^ 1]
    with pytest.raises(Tampered, match="age file") as caught:
        age.decrypt(bytes(data), SEED)
    assert "spelling" in caught.value.why


def test_a_foreign_recipient_beside_ours_is_skipped_but_protected_by_the_mac():
    data = age.encrypt(b"x", [PUBLIC])
    with pytest.raises(Tampered, match="header was altered"):
        age.decrypt(data.replace(b"-> mlkem", b"-> grease x\nAAAA\n-> mlkem", 1), SEED)


@given(seed=st.binary(min_size=32, max_size=32))
def test_identities_are_read_back(seed):
    assert age.parse_identity(age.identity(seed)) == seed
    assert age.parse_identity_file(age.identity_file(seed)) == seed


def test_a_recipient_is_spelled_as_age_does():
    assert age.recipient(PUBLIC).startswith("age1pq1")


@given(at=st.integers(0, 61), letter=st.sampled_from("qpzry9x8gf2tvdw0s3jn54khce6mua7l"))
def test_one_wrong_letter_in_an_identity_is_noticed(at, letter):
    text = age.identity(SEED)
    place = len("AGE-SECRET-KEY-PQ-1") + at % (len(text) - len("AGE-SECRET-KEY-PQ-1"))
    wrong = text[:place] + letter.upper() + text[place + 1 :]
    if wrong != text:
        with pytest.raises(Tampered):
            age.parse_identity(wrong)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "AGE-SECRET-KEY-PQ-1",
        age.identity(SEED).replace("PQ", "pq"),
        age.recipient(PUBLIC),
        "x" * 5000,
        "é1",
    ],
)
def test_what_is_no_identity_is_refused(text):
    with pytest.raises(Tampered):
        age.parse_identity(text)


@pytest.mark.parametrize("data", [b"", b"# only\n", age.identity_file(SEED) * 2, b"\xff"])
def test_an_identity_file_holds_one(data):
    with pytest.raises(Tampered):
        age.parse_identity_file(data)
