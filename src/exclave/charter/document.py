"""The charter: who the custodians are, how many must agree, and which keys belong to which register.

It is stored abroad in the clear, so it names nobody: pseudonyms and keys only; the names behind them are in the
annex, which hosts never see (docs/spec/custody.md, section 2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exclave import codec, instants
from exclave.crypto.hashing import sha256
from exclave.crypto.sign import VERIFIER_BYTES, Verifier
from exclave.crypto.suite import PUBLIC_KEY_BYTES, SUITE_ID
from exclave.errors import NotThere, Refused, Tampered
from exclave.types import EpochId, Instant, RegisterId

TYPE = b"exclave/charter/v1"
NOBODY = "0" * 64  # `realm` and `previous` of the first charter
MAX_CHARTER_BYTES = 8 << 20
MAX_CUSTODIANS = 16  # the most that a secret can be split among
MAX_REGISTERS = 2048  # entries, each about 4.6 KB of text: keeps a charter within its limit
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_SIGNER = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Custodian:
    """One person, under a pseudonym of 16 hex digits that also stands on his signature lines."""

    id: str
    sign: Verifier
    share: bytes  # raw X-Wing public key to which his shares are wrapped


@dataclass(frozen=True, slots=True)
class RegisterEntry:
    """One epoch of one register: the key it is sealed to, and who writes its commits."""

    id: RegisterId
    epoch: EpochId
    key: bytes  # raw X-Wing public key
    writer: Verifier
    term: int
    custody: str  # SHA-256 of the text of the epoch's custody record, hex


@dataclass(frozen=True, slots=True)
class Charter:
    """One version. `hash` is the SHA-256 of its text; the hash of version 1 is the realm's id."""

    realm: str
    version: int
    hash: str
    previous: str
    issued: Instant
    threshold: int
    custodians: tuple[Custodian, ...]
    registers: tuple[RegisterEntry, ...]
    annex: str

    def register(self, register: RegisterId) -> RegisterEntry:
        """The entry of the register's current epoch, which is its last. Raises NotThere."""
        for entry in reversed(self.registers):
            if entry.id == register:
                return entry
        raise _unknown(f"charter {self.version} has no register {register}")

    def epoch(self, register: RegisterId, epoch: EpochId) -> RegisterEntry:
        """The entry of one epoch of a register. Raises NotThere."""
        for entry in self.registers:
            if entry.id == register and entry.epoch == epoch:
                return entry
        raise _unknown(f"charter {self.version} has no epoch {epoch} of register {register}")

    def custodian(self, custodian: str) -> Custodian:
        """The custodian with this pseudonym. Raises Refused."""
        for one in self.custodians:
            if one.id == custodian:
                return one
        raise Refused(
            "custodian-unknown",
            f"{custodian} is not a custodian of this realm",
            why=f"charter {self.version} does not name that pseudonym",
            hint="exclave explain custodian-unknown",
        )


def compose(
    *,
    realm: str = NOBODY,
    version: int = 1,
    previous: str = NOBODY,
    issued: Instant,
    threshold: int,
    custodians: Sequence[Custodian],
    registers: Sequence[RegisterEntry],
    annex: str,
) -> bytes:
    """The text to sign; `parse` checks it. Order of registers counts: a register's last entry is its current epoch."""
    document: dict[str, Any] = {
        "annex": annex,
        "custodians": [
            {"id": one.id, "share": codec.b64(one.share), "sign": codec.b64(one.sign.raw)}
            for one in custodians
        ],
        "issued": instants.to_text(issued),
        "previous": previous,
        "realm": realm,
        "registers": [
            {
                "custody": one.custody,
                "epoch": one.epoch,
                "id": one.id,
                "key": codec.b64(one.key),
                "term": one.term,
                "writer": {"key": codec.b64(one.writer.raw), "name": one.writer.name},
            }
            for one in registers
        ],
        "suite": SUITE_ID,
        "threshold": threshold,
        "version": version,
    }
    return TYPE + b"\n" + codec.encode(document) + b"\n"


def parse(text: bytes) -> Charter:
    """What a charter's text says, its inner rules checked; whether it is *the* charter, `history` knows.

    Raises Tampered for a malformed text and Refused for rules that no charter may break.
    """
    kind, _, line = text.partition(b"\n")
    if kind != TYPE or not line.endswith(b"\n"):
        raise _bad("it is a note of another type")
    fields = codec.decode(line[:-1], limit=MAX_CHARTER_BYTES)
    name = sha256(text).hex()
    try:
        suite, version, realm = (
            fields.pop("suite"),
            _count(fields.pop("version")),
            _hex(fields.pop("realm"), 64),
        )
        charter = Charter(
            realm=name if version == 1 else realm,
            version=version,
            hash=name,
            previous=_hex(fields.pop("previous"), 64),
            issued=instants.from_text(fields.pop("issued")),
            threshold=_count(fields.pop("threshold")),
            custodians=tuple(_custodian(row) for row in fields.pop("custodians")),
            registers=tuple(_register(row) for row in fields.pop("registers")),
            annex=_hex(fields.pop("annex"), 64),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad("a field is missing or of another type") from error
    if fields or suite != SUITE_ID or version < 1:
        raise _bad("it has unknown fields, another suite or an impossible version")
    if (version == 1) != (realm == NOBODY) or (version == 1) != (charter.previous == NOBODY):
        raise _bad("only the first charter has no realm and no predecessor")
    _check(charter)
    return charter


def check_threshold(threshold: int, people: int) -> None:
    """Raises Refused for a threshold with which one person, or two groups that do not meet, could decide."""
    if not (2 <= threshold <= people <= MAX_CUSTODIANS and 2 * threshold > people):
        raise _refused(
            f"{threshold} of {people} custodians: at least 2 and more than half must agree, of at most {MAX_CUSTODIANS}"
        )


def _check(charter: Charter) -> None:
    """Rules within one version."""
    people = len(charter.custodians)
    check_threshold(charter.threshold, people)
    if len({one.id for one in charter.custodians}) != people:
        raise _refused("a custodian stands in it twice")
    keys = [
        part for one in charter.custodians for part in (*_parts(one.sign.raw, 32), *_parts(one.share, 1184))
    ]
    if len(charter.registers) > MAX_REGISTERS:
        raise _refused(f"it has more than {MAX_REGISTERS} register epochs")
    sealing = [part for one in charter.registers for part in _parts(one.key, 1184)]
    if len({(one.id, one.epoch) for one in charter.registers}) != len(charter.registers):
        raise _refused("an epoch of a register stands in it twice")
    if len({*keys, *sealing}) != len(keys) + len(sealing):
        raise _refused("a key stands in it twice")
    signing = set(keys)
    terms: dict[RegisterId, int] = {}
    for one in charter.registers:
        if signing.intersection(_parts(one.writer.raw, 32)):
            raise _refused("a custodian's key is also a writer's")
        if one.term < max(1, terms.get(one.id, 1)):
            raise _refused("the term of a register goes back")
        terms[one.id] = one.term


def _parts(raw: bytes, first: int) -> tuple[bytes, bytes]:
    """Both keys of a hybrid pair: neither half may serve two people."""
    return raw[:first], raw[first:]


def _custodian(row: dict[str, Any]) -> Custodian:
    if set(row) != {"id", "share", "sign"}:
        raise _bad("a custodian with other fields")
    name = _hex(row["id"], 16)
    return Custodian(
        name,
        Verifier(name, codec.unb64(row["sign"], size=VERIFIER_BYTES)),
        codec.unb64(row["share"], size=PUBLIC_KEY_BYTES),
    )


def _register(row: dict[str, Any]) -> RegisterEntry:
    if set(row) != {"custody", "epoch", "id", "key", "term", "writer"} or set(row["writer"]) != {
        "key",
        "name",
    }:
        raise _bad("a register with other fields")
    name = row["writer"]["name"]
    if not isinstance(name, str) or not _SIGNER.fullmatch(name):
        raise _bad("a malformed writer's name")
    return RegisterEntry(
        id=RegisterId(_hex(row["id"], 32)),
        epoch=EpochId(_hex(row["epoch"], 16)),
        key=codec.unb64(row["key"], size=PUBLIC_KEY_BYTES),
        writer=Verifier(name, codec.unb64(row["writer"]["key"], size=VERIFIER_BYTES)),
        term=_count(row["term"]),
        custody=_hex(row["custody"], 64),
    )


def _hex(value: object, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise _bad("a malformed identifier")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad("a malformed number")
    return value


def _unknown(why: str) -> NotThere:
    return NotThere(
        "register-not-chartered",
        "The charter does not know this register",
        why=why,
        hint="exclave ceremony --help",
    )


def _refused(why: str) -> Refused:
    return Refused(
        "charter-refused", "No charter may say this", why=why, hint="exclave explain charter-refused"
    )


def _bad(why: str) -> Tampered:
    return Tampered(
        "charter-invalid", "A charter cannot be trusted", why=why, hint="exclave explain charter-invalid"
    )
