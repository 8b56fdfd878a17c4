"""Commits: the clear, signed, numbered records that make what was sealed a snapshot (docs/spec/store.md, section 6)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from exclave import codec, instants
from exclave.crypto import sign
from exclave.crypto.sign import Signer, Verifier
from exclave.errors import Refused, Tampered
from exclave.sealed.container import MAX_OBJECT_BYTES
from exclave.types import EpochId, Instant, ObjectId, RegisterId

TYPE = b"exclave/commit/v1"
FIRST = "0" * 64
MAX_COMMIT_BYTES = sign.MAX_NOTE_BYTES
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Part:
    """A manifest or index part by name, and its size in bytes."""

    id: ObjectId
    size: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack by name, its number within the epoch, and its size in bytes."""

    id: ObjectId
    number: int
    size: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One snapshot of a register, as everyone may know it."""

    realm: str
    register: RegisterId
    epoch: EpochId
    term: int
    sequence: int
    previous: str
    at: Instant
    manifest: tuple[Part, ...]
    index: tuple[Part, ...]
    packs: tuple[Pack, ...]
    full: bool
    gaps: int
    charter: str
    lease: str = "standard"


def encode(commit: Commit, signer: Signer) -> bytes:
    """The signed note to store. Signatures differ each time it is called: keep what was published.

    Raises Refused for one that is too long to be read again: published, it would end the register's history.
    """
    document: dict[str, Any] = {
        "at": instants.to_text(commit.at),
        "charter": commit.charter,
        "epoch": commit.epoch,
        "full": commit.full,
        "gaps": commit.gaps,
        "index": [{"id": part.id, "size": part.size} for part in commit.index],
        "lease": commit.lease,
        "manifest": [{"id": part.id, "size": part.size} for part in commit.manifest],
        "packs": [{"id": pack.id, "number": pack.number, "size": pack.size} for pack in commit.packs],
        "previous": commit.previous,
        "realm": commit.realm,
        "register": commit.register,
        "sequence": commit.sequence,
        "term": commit.term,
    }
    line = codec.encode(document)
    if len(line) > MAX_COMMIT_BYTES:
        raise Refused(
            "commit-too-long",
            f"A snapshot cannot name {len(commit.packs)} new packs at once",
            why=f"its commit would have {len(line)} bytes where readers take {MAX_COMMIT_BYTES}",
            hint="exclave explain commit-too-long",
        )
    return signer.sign(TYPE + b"\n" + line + b"\n")


def decode(note: bytes, verifier: Verifier) -> Commit:
    """The commit in a note that the register's writer signed. Raises Tampered for anything else."""
    text = sign.verified(note, verifier)
    kind, _, line = text.partition(b"\n")
    if kind != TYPE or not line.endswith(b"\n"):
        raise _bad("it is a note of another type")
    fields = codec.decode(line[:-1], limit=MAX_COMMIT_BYTES)
    try:
        commit = Commit(
            realm=_hex(fields.pop("realm"), 64),
            register=RegisterId(_hex(fields.pop("register"), 32)),
            epoch=EpochId(_hex(fields.pop("epoch"), 16)),
            term=_count(fields.pop("term")),
            sequence=_count(fields.pop("sequence")),
            previous=_hex(fields.pop("previous"), 64),
            at=instants.from_text(fields.pop("at")),
            manifest=tuple(_part(row) for row in fields.pop("manifest")),
            index=tuple(_part(row) for row in fields.pop("index")),
            packs=tuple(_pack(row) for row in fields.pop("packs")),
            full=_flag(fields.pop("full")),
            gaps=_count(fields.pop("gaps")),
            charter=_hex(fields.pop("charter"), 64),
            lease=str(fields.pop("lease")),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _bad("a field is missing or of another type") from error
    if fields:
        raise _bad("it has unknown fields")
    return commit


def _part(row: dict[str, Any]) -> Part:
    if set(row) != {"id", "size"}:
        raise _bad("a part with other fields")
    return Part(ObjectId(_hex(row["id"], 64)), _size(row["size"]))


def _pack(row: dict[str, Any]) -> Pack:
    if set(row) != {"id", "number", "size"}:
        raise _bad("a pack with other fields")
    return Pack(ObjectId(_hex(row["id"], 64)), _count(row["number"]), _size(row["size"]))


def _hex(value: object, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise _bad("a malformed identifier")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad("a malformed number")
    return value


def _size(value: object) -> int:
    size = _count(value)
    if size > MAX_OBJECT_BYTES:
        raise _bad("an object that is larger than any can be")
    return size


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad("a malformed flag")
    return value


def _bad(why: str) -> Tampered:
    return Tampered("commit-invalid", "A commit cannot be trusted", why=why, hint="exclave verify")
