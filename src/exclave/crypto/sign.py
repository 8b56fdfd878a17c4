"""Signed notes (C2SP signed-note) with hybrid signatures: Ed25519 and ML-DSA-65, and both must verify.

A note is text that ends in a newline, a blank line, and signature lines `— NAME base64(key id || signature)`.
The bytes received are verified, hashed and stored as they are; nothing is re-serialised.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa

from exclave.codec import b64, unb64
from exclave.errors import Tampered

MAX_NOTE_BYTES = 64 << 20
MAX_SIGNATURE_LINES = 64
MAX_LINE_BYTES = 16 << 10  # a signature of ML-DSA-65 takes 4.4 KB of it
SEED_BYTES = 64  # Ed25519 seed 32, ML-DSA-65 seed 32
VERIFIER_BYTES = 32 + 1952  # Ed25519 and ML-DSA-65 public keys
_ED25519 = b"\x01"  # signature types of C2SP signed-note
_MLDSA65 = b"\xffexclave/ml-dsa-65/v1"
_CONTEXT = b"exclave/note/v1"


@dataclass(frozen=True, slots=True)
class Verifier:
    """A signer's name and public keys: Ed25519 (32 bytes) then ML-DSA-65 (1952 bytes)."""

    name: str
    raw: bytes

    def key_ids(self) -> tuple[bytes, bytes]:
        """Key ids (4 bytes each) of the two signatures, C2SP signed-note section "Signatures"."""
        return _key_id(self.name, _ED25519, self.raw[:32]), _key_id(self.name, _MLDSA65, self.raw[32:])


class Signer:
    """Signs notes with a secret seed of 64 bytes. Its representation never shows the seed."""

    __slots__ = ("_ed25519", "_mldsa", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("a signing seed has 64 bytes")
        check_name(name)
        self._ed25519 = ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32])
        self._mldsa = mldsa.MLDSA65PrivateKey.from_seed_bytes(seed[32:])
        raw = self._ed25519.public_key().public_bytes_raw() + self._mldsa.public_key().public_bytes_raw()
        self.verifier = Verifier(name, raw)

    def sign(self, text: bytes) -> bytes:
        """The note: `text` (which ends in a newline), a blank line, two signature lines of this signer."""
        return text + b"\n" + self.signature_lines(text)

    def signature_lines(self, text: bytes) -> bytes:
        """Only the two lines, to add to a note that others sign too."""
        if not text.endswith(b"\n"):
            raise ValueError("the text of a note ends in a newline")
        ed_id, ml_id = self.verifier.key_ids()
        ed = b64(ed_id + self._ed25519.sign(text))
        ml = b64(ml_id + self._mldsa.sign(text, _CONTEXT))
        return f"\u2014 {self.verifier.name} {ed}\n\u2014 {self.verifier.name} {ml}\n".encode()


def generate_seed() -> bytes:
    """A fresh secret signing seed."""
    return os.urandom(SEED_BYTES)


def signed_by(note: bytes, verifiers: list[Verifier]) -> tuple[bytes, set[str]]:
    """The note's text and the names among `verifiers` whose two signatures both verify.

    Counts names, never signatures. Raises Tampered for a malformed note, or a wrong signature under a known key.
    """
    text, lines = split(note)
    found: dict[tuple[str, bytes], bytes] = {}
    for name, blob in lines:
        if found.setdefault((name, blob[:4]), blob[4:]) != blob[4:]:
            raise _bad("two different signatures of one key")
    names: set[str] = set()
    for verifier in verifiers:
        ed_id, ml_id = verifier.key_ids()
        ed, ml = found.get((verifier.name, ed_id)), found.get((verifier.name, ml_id))
        if ed is None or ml is None:
            continue
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(verifier.raw[:32]).verify(ed, text)
            mldsa.MLDSA65PublicKey.from_public_bytes(verifier.raw[32:]).verify(ml, text, _CONTEXT)
        except InvalidSignature as error:
            raise _bad(f"the signature of {verifier.name} is wrong") from error
        names.add(verifier.name)
    return text, names


def verified(note: bytes, verifier: Verifier) -> bytes:
    """The text of a note that `verifier` signed. Raises Tampered otherwise."""
    text, names = signed_by(note, [verifier])
    if not names:
        raise _bad(f"it does not carry the signature of {verifier.name}")
    return text


def split(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Text and signature lines (name, key id || signature) of a note, not verified. Raises Tampered."""
    if len(note) > MAX_NOTE_BYTES:
        raise _bad("too long")
    end = note.rfind(b"\n\n")
    if end < 0 or not note.endswith(b"\n"):
        raise _bad("no signatures")
    if (
        len(note) - end > MAX_SIGNATURE_LINES * MAX_LINE_BYTES
        or note.count(b"\n", end + 2) > MAX_SIGNATURE_LINES
    ):
        raise _bad("too many signatures, or too long ones")
    text, rows = note[: end + 1], note[end + 2 : -1].split(b"\n")
    lines: list[tuple[str, bytes]] = []
    for row in rows:
        try:
            dash, name, blob = row.decode().split(" ")
        except (UnicodeDecodeError, ValueError) as error:
            raise _bad("a malformed signature line") from error
        data = unb64(blob)
        if dash != "\u2014" or not name or len(data) < 5:
            raise _bad("a malformed signature line")
        lines.append((name, data))
    return text, lines


def check_name(name: str) -> None:
    """Raises ValueError unless `name` may stand on a signature line (not empty, no space, no plus sign)."""
    if not name or "+" in name or any(c.isspace() or not c.isprintable() for c in name):
        raise ValueError("a signer's name is not empty and has no spaces or plus signs")


def _key_id(name: str, kind: bytes, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + kind + public).digest()[:4]


def _bad(why: str) -> Tampered:
    return Tampered("note-invalid", "A signed note cannot be trusted", why=why, hint="exclave verify")
