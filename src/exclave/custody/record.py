"""The custody record of one register epoch: commitments to all shares, and each share wrapped to its custodian.

It is stored abroad beside the charter, which holds the hash of its text; nobody but the custodian opens his share.
The signatures on its note are receipts: each says "I have opened my share and it is good".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exclave import codec
from exclave.charter.document import RegisterEntry
from exclave.crypto import sign
from exclave.crypto.hashing import sha256
from exclave.crypto.open import open_sealed, private_key
from exclave.crypto.shares import MAX_SHARES, Share
from exclave.errors import Refused, Tampered
from exclave.types import EpochId, RegisterId

TYPE = b"exclave/custody/v1"
MAX_RECORD_BYTES = 1 << 20
SET_BYTES = 16
SHARE_BYTES = 32
BLIND_BYTES = 32
OPENED_BYTES = 1 + SHARE_BYTES + BLIND_BYTES
SEALED_BYTES = OPENED_BYTES + 1136
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class OpenedShare:
    """What is inside a wrapped share: the share, and the blinding of its commitment. Secret."""

    share: Share
    blind: bytes = field(repr=False)

    def packed(self) -> bytes:
        """65 bytes: x, share, blinding."""
        return bytes([self.share.x]) + self.share.data + self.blind


@dataclass(frozen=True, slots=True)
class Holding:
    """One custodian's row; its place in the record is the share's x."""

    custodian: str
    commitment: bytes  # 32 bytes
    wrapped: bytes  # 1201 bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One split of one epoch's seed. `hash` is the SHA-256 of the record's text, hex."""

    set: bytes  # 16 random bytes that name this split
    register: RegisterId
    epoch: EpochId
    key: bytes  # SHA-256 of the register's raw public key
    threshold: int
    holdings: tuple[Holding, ...]
    hash: str

    def x_of(self, custodian: str) -> int:
        """The place of a custodian in this record. Raises Refused."""
        for x, holding in enumerate(self.holdings):
            if holding.custodian == custodian:
                return x
        raise Refused(
            "share-not-held",
            f"{custodian} holds no share of register {self.register}",
            why=f"the custody record of epoch {self.epoch} has none for that pseudonym",
            hint="exclave explain share-not-held",
        )

    def unwrap(self, custodian: str, seed: bytes) -> OpenedShare:
        """A custodian's own share, with the seed of his identity; its commitment is checked. Raises Tampered."""
        holding = self.holdings[self.x_of(custodian)]
        info = wrap_info(self.set, self.key, custodian)
        return self.open_packed(custodian, open_sealed(holding.wrapped, private_key(seed), info))

    def open_packed(self, custodian: str, packed: bytes) -> OpenedShare:
        """The share in `packed`, if it is exactly the one this custodian was given. Raises Tampered."""
        x = self.x_of(custodian)
        if len(packed) == OPENED_BYTES and packed[0] == x:
            opened = OpenedShare(Share(x, packed[1 : 1 + SHARE_BYTES]), packed[1 + SHARE_BYTES :])
            if commitment(self.set, opened) == self.holdings[x].commitment:
                return opened
        raise Tampered(
            "share-substituted",
            f"The share of custodian {custodian} is not the one he was given",
            why=f"it does not match its commitment in the custody record of register {self.register}",
            hint="exclave explain share-substituted",
        )


def commitment(set_id: bytes, opened: OpenedShare) -> bytes:
    """32 bytes that fix a share without telling it."""
    parts = (bytes([opened.share.x]), opened.share.data, opened.blind)
    return sha256(codec.lengths_prefixed(b"exclave/share-commit/v1", set_id, *parts))


def wrap_info(set_id: bytes, key_hash: bytes, custodian: str) -> bytes:
    """HPKE `info` of a share at rest: binds it to its set, the register's key and its custodian."""
    return codec.lengths_prefixed(b"exclave/share-at-rest/v1", set_id, key_hash, custodian.encode())


def compose(
    *,
    set_id: bytes,
    register: RegisterId,
    epoch: EpochId,
    key: bytes,
    threshold: int,
    holdings: Sequence[Holding],
) -> bytes:
    """The text to sign. `key` is the SHA-256 of the register's raw public key."""
    document: dict[str, Any] = {
        "epoch": epoch,
        "key": key.hex(),
        "register": register,
        "set": set_id.hex(),
        "shares": [
            {
                "commitment": one.commitment.hex(),
                "custodian": one.custodian,
                "wrapped": codec.b64(one.wrapped),
            }
            for one in holdings
        ],
        "threshold": threshold,
    }
    return TYPE + b"\n" + codec.encode(document) + b"\n"


def parse(text: bytes) -> Record:
    """What a record's text says; `of_entry` tells whether it is the one that the charter means. Raises Tampered."""
    kind, _, line = text.partition(b"\n")
    if kind != TYPE or not line.endswith(b"\n"):
        raise _bad("it is a note of another type")
    fields = codec.decode(line[:-1], limit=MAX_RECORD_BYTES)
    try:
        threshold, rows = fields.pop("threshold"), fields.pop("shares")
        record = Record(
            set=_bytes(fields.pop("set"), SET_BYTES),
            register=RegisterId(_bytes(fields.pop("register"), 16).hex()),
            epoch=EpochId(_bytes(fields.pop("epoch"), 8).hex()),
            key=_bytes(fields.pop("key"), 32),
            threshold=threshold,
            holdings=tuple(_holding(row) for row in rows),
            hash=sha256(text).hex(),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad("a field is missing or of another type") from error
    people = len(record.holdings)
    if fields or not isinstance(threshold, int) or isinstance(threshold, bool):
        raise _bad("it has unknown fields or a malformed threshold")
    if (
        not 2 <= threshold <= people <= MAX_SHARES
        or len({one.custodian for one in record.holdings}) != people
    ):
        raise _bad("an impossible number of shares, or two for one custodian")
    return record


def of_entry(entry: RegisterEntry, note: bytes) -> Record:
    """The record in `note`, which must be the very one that the charter's entry names. Raises Tampered."""
    if len(note) > MAX_RECORD_BYTES:
        raise _bad("it is too long")
    text, _ = sign.split(note)
    if sha256(text).hex() != entry.custody:
        raise _bad("it is not the one that the charter names")
    record = parse(text)
    if (record.register, record.epoch, record.key) != (entry.id, entry.epoch, sha256(entry.key)):
        raise _bad("it is about another register, epoch or key than the charter says")
    return record


def _holding(row: dict[str, Any]) -> Holding:
    if set(row) != {"commitment", "custodian", "wrapped"}:
        raise _bad("a share with other fields")
    wrapped = codec.unb64(row["wrapped"], size=SEALED_BYTES)
    return Holding(_bytes(row["custodian"], 8).hex(), _bytes(row["commitment"], 32), wrapped)


def _bytes(value: object, size: int) -> bytes:
    if not isinstance(value, str) or len(value) != 2 * size or not _HEX.fullmatch(value):
        raise _bad("a malformed identifier")
    return bytes.fromhex(value)


def _bad(why: str) -> Tampered:
    return Tampered("custody-invalid", "A custody record cannot be trusted", why=why, hint="exclave verify")
