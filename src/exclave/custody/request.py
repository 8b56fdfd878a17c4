"""The request of an embassy: which registers, as of when, until when, and the key for this one session.

It is a text of two lines without a signature: in this form nobody abroad has a key that custodians could check, so
its origin is confirmed by a person who reads out the fingerprint. What custodians approve is the hash of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from exclave import codec, instants
from exclave.charter.document import Charter
from exclave.crypto.hashing import sha256
from exclave.crypto.seal import public_key
from exclave.crypto.suite import PUBLIC_KEY_BYTES
from exclave.errors import Refused, Tampered
from exclave.types import EpochId, Instant, RegisterId

TYPE = b"exclave/request/v1"
MAX_REQUEST_BYTES = 256 << 10
MAX_REGISTERS = 1024
NONCE_BYTES = 16
REASON_LIMIT = 500  # characters
LONGEST_SECONDS = 31 * 86400
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One epoch of one register."""

    register: RegisterId
    epoch: EpochId


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. `at` and `snapshot` are never both set; neither set: the newest snapshot there is."""

    realm: str
    charter: str
    registers: tuple[Wanted, ...]
    at: Instant | None  # the newest snapshot that is not after it
    snapshot: int | None  # the commit's sequence; then `registers` has one row
    embassy: str  # salted hash of the embassy's name (charter.annex), hex
    key: bytes  # raw X-Wing public key of this session
    reason: str
    nonce: bytes
    not_before: Instant
    not_after: Instant  # after it no approval counts and the joined key is wiped
    hash: str

    @property
    def fingerprint(self) -> str:
        """20 hex digits in groups of four, to be read out: the start of the request's hash."""
        return " ".join(self.hash[at : at + 4] for at in range(0, 20, 4))


def compose(
    charter: Charter,
    *,
    registers: Sequence[Wanted],
    at: Instant | None,
    snapshot: int | None,
    embassy: str,
    key: bytes,
    reason: str,
    nonce: bytes,
    not_before: Instant,
    not_after: Instant,
) -> bytes:
    """The text of a request under `charter`; `parse` checks it."""
    document: dict[str, Any] = {
        "at": None if at is None else instants.to_text(at),
        "charter": charter.hash,
        "embassy": embassy,
        "key": codec.b64(key),
        "nonce": nonce.hex(),
        "not_after": instants.to_text(not_after),
        "not_before": instants.to_text(not_before),
        "realm": charter.realm,
        "reason": reason,
        "registers": [{"epoch": one.epoch, "id": one.register} for one in registers],
        "snapshot": snapshot,
    }
    return TYPE + b"\n" + codec.encode(document) + b"\n"


def parse(text: bytes) -> Request:
    """What a request says; `check` judges it. Raises Tampered for anything malformed."""
    if len(text) > MAX_REQUEST_BYTES:
        raise _bad("it is too long")
    kind, _, line = text.partition(b"\n")
    if kind != TYPE or not line.endswith(b"\n"):
        raise _bad("it is a file of another type")
    fields = codec.decode(line[:-1], limit=MAX_REQUEST_BYTES)
    try:
        at = fields.pop("at")
        request = Request(
            realm=_hex(fields.pop("realm"), 64),
            charter=_hex(fields.pop("charter"), 64),
            registers=tuple(_wanted(row) for row in fields.pop("registers")),
            at=None if at is None else instants.from_text(at),
            snapshot=_sequence(fields.pop("snapshot")),
            embassy=_hex(fields.pop("embassy"), 64),
            key=codec.unb64(fields.pop("key"), size=PUBLIC_KEY_BYTES),
            reason=_reason(fields.pop("reason")),
            nonce=bytes.fromhex(_hex(fields.pop("nonce"), 2 * NONCE_BYTES)),
            not_before=instants.from_text(fields.pop("not_before")),
            not_after=instants.from_text(fields.pop("not_after")),
            hash=sha256(text).hex(),
        )
        public_key(request.key)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _bad("a field is missing or of another type") from error
    if fields:
        raise _bad("it has unknown fields")
    if not 1 <= len(set(request.registers)) == len(request.registers) <= MAX_REGISTERS:
        raise _bad("it names no register, too many, or one twice")
    if request.snapshot is not None and (request.at is not None or len(request.registers) != 1):
        raise _bad("a snapshot's number goes with one register and no point in time")
    if not 0 < request.not_after - request.not_before <= LONGEST_SECONDS * 1_000_000_000:
        raise _bad(f"it is valid for no time, or for more than {LONGEST_SECONDS // 86400} days")
    return request


def check(request: Request, charter: Charter, now: Instant) -> None:
    """Raises Refused unless `request` is for this realm, under this very charter, for epochs in it, and valid now."""
    if request.realm != charter.realm:
        raise Refused(
            "request-other-realm",
            "This request is for another realm",
            why=f"it asks realm {request.realm[:16]}..., this one is {charter.realm[:16]}...",
            hint="exclave explain request-other-realm",
        )
    if request.charter != charter.hash:
        raise Refused(
            "request-other-charter",
            "This request was made under another charter than the one in force here",
            why=f"it names {request.charter[:16]}..., charter {charter.version} is {charter.hash[:16]}...",
            hint="exclave request   # again, once both sides hold the newest charter",
        )
    for one in request.registers:
        charter.epoch(one.register, one.epoch)
    if now < request.not_before:
        raise _time("request-not-yet", f"it is valid from {instants.to_text(request.not_before)}")
    if now > request.not_after:
        raise _time("request-expired", f"it was valid until {instants.to_text(request.not_after)}")


def _wanted(row: dict[str, Any]) -> Wanted:
    if set(row) != {"epoch", "id"}:
        raise _bad("a register with other fields")
    return Wanted(RegisterId(_hex(row["id"], 32)), EpochId(_hex(row["epoch"], 16)))


def _sequence(value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _bad("a malformed snapshot number")
    return value


def _reason(value: object) -> str:
    """Shown to the person who decides: printable only, so it cannot rewrite the line it stands in."""
    if not isinstance(value, str) or not 0 < len(value) <= REASON_LIMIT or not value.isprintable():
        raise _bad(f"a reason is one printable line of at most {REASON_LIMIT} characters")
    return value


def _hex(value: object, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise _bad("a malformed identifier")
    return value


def _time(error_id: str, why: str) -> Refused:
    return Refused(
        error_id, "This request is not valid now", why=why, hint="exclave request   # a new one; check clocks"
    )


def _bad(why: str) -> Tampered:
    return Tampered("request-invalid", "This request cannot be used", why=why, hint="exclave request --help")
