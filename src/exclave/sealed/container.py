"""The container of every sealed object: a clear header, capsules, a sealed body (docs/spec/store.md, section 3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from exclave.codec import lengths_prefixed
from exclave.crypto.suite import CAPSULE_BYTES, SUITE_ID, sealed_size
from exclave.errors import Tampered
from exclave.types import EpochId, RegisterId

PACK, MANIFEST, INDEX = 1, 2, 3
MAGIC = b"exclave\x01"
FIXED_BYTES = 88
RECIPIENT_BYTES = 16 + CAPSULE_BYTES
MAX_RECIPIENTS = 4
MIN_PLAIN_BYTES = 4096
MAX_PLAIN_BYTES = 256 << 20
MAX_OBJECT_BYTES = FIXED_BYTES + MAX_RECIPIENTS * RECIPIENT_BYTES + sealed_size(MAX_PLAIN_BYTES)
_FIXED = struct.Struct(">8s4BI32s16s8sQQ")


@dataclass(frozen=True, slots=True)
class Header:
    """What a container says of itself in the clear. Trust it only as far as the commit and the capsule agree."""

    kind: int
    plain_bytes: int
    realm: bytes
    register: RegisterId
    epoch: EpochId
    term: int
    number: int  # pack number, or the commit's sequence
    recipients: int

    def fixed(self) -> bytes:
        """The first 88 bytes of the object."""
        return _FIXED.pack(
            MAGIC,
            self.kind,
            SUITE_ID,
            self.recipients,
            0,
            self.plain_bytes,
            self.realm,
            bytes.fromhex(self.register),
            bytes.fromhex(self.epoch),
            self.term,
            self.number,
        )

    @property
    def header_bytes(self) -> int:
        """Where the body begins."""
        return FIXED_BYTES + RECIPIENT_BYTES * self.recipients

    @property
    def object_bytes(self) -> int:
        """The exact size of the whole object."""
        return self.header_bytes + sealed_size(self.plain_bytes)


def parse(data: bytes | memoryview) -> Header:
    """The header at the start of `data` (at least 88 bytes). Raises Tampered unless every field is well-formed."""
    if len(data) < FIXED_BYTES:
        raise _bad("too short")
    magic, kind, suite, recipients, zero, plain, realm, register, epoch, term, number = _FIXED.unpack_from(
        data
    )
    if magic != MAGIC or suite != SUITE_ID or zero != 0 or kind not in (PACK, MANIFEST, INDEX):
        raise _bad("not a sealed object of this format")
    expected = recipients == 0 if kind == INDEX else 1 <= recipients <= MAX_RECIPIENTS
    if not expected or plain > MAX_PLAIN_BYTES or plain != size_class(plain):
        raise _bad("impossible number of recipients or size")
    return Header(
        kind, plain, realm, RegisterId(register.hex()), EpochId(epoch.hex()), term, number, recipients
    )


def size_class(plain_bytes: int) -> int:
    """The smallest size class that holds `plain_bytes`: m * 2**e with 8 <= m <= 15, at least 4096."""
    if plain_bytes <= MIN_PLAIN_BYTES:
        return MIN_PLAIN_BYTES
    step = 1 << ((plain_bytes - 1).bit_length() - 4)
    return -(-plain_bytes // step) * step


def capsule_info(fixed: bytes, recipient: bytes) -> bytes:
    """HPKE `info` of the capsule for `recipient` (16 bytes): binds the key to this object and reader."""
    return lengths_prefixed(b"exclave/capsule/v1", fixed, recipient)


def body_context(fixed: bytes) -> bytes:
    """Cobblestone context of the body: binds the content to this object."""
    return lengths_prefixed(b"exclave/body/v1", fixed)


def _bad(why: str) -> Tampered:
    return Tampered(
        "object-malformed",
        "A stored object is not a well-formed sealed object",
        why=why,
        hint="exclave verify   # names every such object",
    )
