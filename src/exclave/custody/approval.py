"""One custodian's answer to one request: his shares re-sealed to its session key, or a refusal; signed either way.

A re-sealed share is bound to the request's hash, its set and its custodian, so it opens for nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from exclave import codec, instants
from exclave.charter.document import Charter
from exclave.crypto import sign
from exclave.crypto.seal import seal_to
from exclave.crypto.sign import Signer
from exclave.custody.record import SEALED_BYTES, Record
from exclave.custody.request import REASON_LIMIT, Request, Wanted
from exclave.errors import Refused, Tampered
from exclave.types import EpochId, Instant, RegisterId

TYPE = b"exclave/approval/v1"
MAX_APPROVAL_BYTES = 4 << 20
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


class Verdict(StrEnum):
    """What the custodian says."""

    APPROVE = "approve"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Approval:
    """An answer whose signature was checked. `shares` is empty in a refusal."""

    request: str
    custodian: str
    verdict: Verdict
    at: Instant
    reason: str
    shares: Mapping[Wanted, bytes]


def approve(
    request: Request,
    records: Mapping[Wanted, Record],
    *,
    custodian: str,
    share_seed: bytes,
    signer: Signer,
    at: Instant,
) -> bytes:
    """The signed approval: each share he holds, opened, checked against its commitment, re-sealed to the request.

    `records` are those of the request's registers, as the charter names them. Raises Tampered, Refused.
    """
    sealed: list[dict[str, Any]] = []
    for wanted in request.registers:
        record = records[wanted]
        if custodian not in {one.custodian for one in record.holdings}:
            continue  # he became a custodian after this epoch was split
        opened = record.unwrap(custodian, share_seed)
        share = seal_to(opened.packed(), request.key, release_info(request, record, custodian))
        sealed.append({"epoch": wanted.epoch, "register": wanted.register, "share": codec.b64(share)})
    if not sealed:
        records[request.registers[0]].x_of(custodian)
    return _sign(request, signer, custodian, Verdict.APPROVE, at, "", sealed)


def refuse(request: Request, *, custodian: str, signer: Signer, at: Instant, reason: str) -> bytes:
    """The signed refusal. It blocks nobody else."""
    if not reason.isprintable() or len(reason) > REASON_LIMIT:
        raise ValueError("a reason is one printable line")
    return _sign(request, signer, custodian, Verdict.REFUSE, at, reason, [])


def release_info(request: Request, record: Record, custodian: str) -> bytes:
    """HPKE `info` of a share on its way to the session."""
    return codec.lengths_prefixed(
        b"exclave/share-release/v1", bytes.fromhex(request.hash), record.set, custodian.encode()
    )


def verify(note: bytes, charter: Charter) -> Approval:
    """The answer in `note`, signed by the custodian of `charter` whom it names.

    Raises Refused for a pseudonym that the charter does not have and Tampered for a wrong or missing signature.
    """
    if len(note) > MAX_APPROVAL_BYTES:
        raise _bad("it is too long")
    _, lines = sign.split(note)
    person = charter.custodian(lines[0][0])
    text = sign.verified(note, person.sign)
    kind, _, line = text.partition(b"\n")
    if kind != TYPE or not line.endswith(b"\n"):
        raise _bad("it is a note of another type")
    fields = codec.decode(line[:-1], limit=MAX_APPROVAL_BYTES)
    try:
        rows = fields.pop("shares")
        approval = Approval(
            request=_hex(fields.pop("request"), 64),
            custodian=_hex(fields.pop("custodian"), 16),
            verdict=Verdict(fields.pop("verdict")),
            at=instants.from_text(fields.pop("at")),
            reason=_reason(fields.pop("reason")),
            shares=dict(_share(row) for row in rows),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _bad("a field is missing or of another type") from error
    if fields or len(approval.shares) != len(rows):
        raise _bad("it has unknown fields or a share twice")
    if approval.custodian != person.id:
        raise _bad("it was signed by another custodian than it names")
    if (approval.verdict is Verdict.REFUSE) != (not approval.shares):
        raise _bad("a refusal with shares, or an approval without")
    return approval


def check(approval: Approval, request: Request) -> None:
    """Raises Refused unless `approval` answers this very request, within its time and within its registers."""
    if approval.request != request.hash:
        raise Refused(
            "approval-other-request",
            f"The approval of {approval.custodian} is for another request",
            why=f"it answers {approval.request[:16]}..., this request is {request.hash[:16]}...",
            hint="exclave approve REQUEST   # by that custodian, with this request",
        )
    if not request.not_before <= approval.at <= request.not_after:
        raise Refused(
            "approval-late",
            f"The approval of {approval.custodian} was not given while the request was valid",
            why=f"given {instants.to_text(approval.at)}, valid until {instants.to_text(request.not_after)}",
            hint="exclave request   # a new one",
        )
    if not set(approval.shares) <= set(request.registers):
        raise _bad("it carries shares that the request did not ask for")


def _sign(
    request: Request,
    signer: Signer,
    custodian: str,
    verdict: Verdict,
    at: Instant,
    reason: str,
    shares: list[dict[str, Any]],
) -> bytes:
    document: dict[str, Any] = {
        "at": instants.to_text(at),
        "custodian": custodian,
        "reason": reason,
        "request": request.hash,
        "shares": shares,
        "verdict": verdict.value,
    }
    return signer.sign(TYPE + b"\n" + codec.encode(document) + b"\n")


def _share(row: dict[str, Any]) -> tuple[Wanted, bytes]:
    if set(row) != {"epoch", "register", "share"}:
        raise _bad("a share with other fields")
    wanted = Wanted(RegisterId(_hex(row["register"], 32)), EpochId(_hex(row["epoch"], 16)))
    return wanted, codec.unb64(row["share"], size=SEALED_BYTES)


def _reason(value: object) -> str:
    if not isinstance(value, str) or len(value) > REASON_LIMIT or not value.isprintable():
        raise _bad("a malformed reason")
    return value


def _hex(value: object, digits: int) -> str:
    if not isinstance(value, str) or len(value) != digits or not _HEX.fullmatch(value):
        raise _bad("a malformed identifier")
    return value


def _bad(why: str) -> Tampered:
    return Tampered(
        "approval-invalid", "An approval cannot be used", why=why, hint="exclave explain approval-invalid"
    )
