"""From approvals to a key: enough custodians make an `Authorised`, and only that is joined to the register's key.

`join` runs in the keyholder process and nowhere else; it holds seeds for the time it takes to compare them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exclave.charter.document import Charter
from exclave.crypto import shares
from exclave.crypto.open import PrivateKey, open_sealed, private_key, public_key_of
from exclave.custody import approval as approvals
from exclave.custody import request as requests
from exclave.custody.approval import Approval, Verdict
from exclave.custody.record import Record
from exclave.custody.request import Request, Wanted
from exclave.errors import QuorumMissing, Refused, Tampered
from exclave.types import Buffer, Instant


@dataclass(frozen=True, slots=True)
class Authorised:
    """A request to which a quorum of distinct custodians agreed, for every register in it. Made by `authorise` only."""

    charter: Charter
    request: Request
    records: Mapping[Wanted, Record]
    approvals: tuple[Approval, ...]


def authorise(
    charter: Charter,
    records: Mapping[Wanted, Record],
    request: Request,
    answers: Iterable[bytes],
    *,
    now: Instant,
    names: Mapping[str, str],
) -> Authorised:
    """The answers judged. `records` were checked against the charter; `names` are the persons, for messages.

    One answer that does not belong here is an error by itself: put it aside and ask again without it.
    Raises Tampered, Refused, QuorumMissing.
    """
    requests.check(request, charter, now)
    given: dict[str, Approval] = {}
    for note in answers:
        answer = approvals.verify(note, charter)
        approvals.check(answer, request)
        if answer.custodian in given:
            raise Refused(
                "approval-twice",
                f"{names.get(answer.custodian, answer.custodian)} answered twice",
                why="each custodian counts once",
                hint="exclave activate   # again, with one file of each custodian",
            )
        given[answer.custodian] = answer
    agreed = [one for one in given.values() if one.verdict is Verdict.APPROVE]
    for wanted in request.registers:
        _require_quorum(charter, records[wanted], wanted, agreed, given.values(), names)
    return Authorised(charter, request, dict(records), tuple(agreed))


def join(authorised: Authorised, session_seed: Buffer) -> dict[Wanted, PrivateKey]:
    """The registers' private keys, each compared with the charter's public key. Raises Tampered.

    `session_seed` is the seed of the request's key. What held a seed here is overwritten, as far as Python can.
    """
    if public_key_of(session_seed) != authorised.request.key:
        raise Tampered(
            "session-key-wrong",
            "The session's secret does not belong to this request",
            why="its public key is another one",
            hint="exclave request   # a new one; use the secret file written beside it",
        )
    session = private_key(session_seed)
    return {wanted: _join_one(authorised, wanted, session) for wanted in authorised.request.registers}


def _join_one(authorised: Authorised, wanted: Wanted, session: PrivateKey) -> PrivateKey:
    record = authorised.records[wanted]
    opened: list[shares.Share] = []
    for answer in authorised.approvals:
        sealed = answer.shares.get(wanted)
        if sealed is not None:
            info = approvals.release_info(authorised.request, record, answer.custodian)
            opened.append(record.open_packed(answer.custodian, open_sealed(sealed, session, info)).share)
    seed = shares.combine(record.threshold, opened)
    try:
        if public_key_of(seed) != authorised.charter.epoch(wanted.register, wanted.epoch).key:
            raise Tampered(
                "joined-key-wrong",
                f"The shares of register {wanted.register} make another key than the charter's",
                why="they agree with each other, but not with what was sealed",
                hint="exclave explain joined-key-wrong",
            )
        return private_key(seed)
    finally:
        seed[:] = bytes(len(seed))


def _require_quorum(
    charter: Charter,
    record: Record,
    wanted: Wanted,
    agreed: Iterable[Approval],
    answered: Iterable[Approval],
    names: Mapping[str, str],
) -> None:
    holders = {one.custodian for one in record.holdings}
    have = [one.custodian for one in agreed if wanted in one.shares and one.custodian in holders]
    needed = max(charter.threshold, record.threshold)
    if len(have) >= needed:
        return
    refused = [one.custodian for one in answered if one.verdict is Verdict.REFUSE]
    why = f"{needed} custodians must approve, {len(have)} did"
    why += f" ({_listed(have, names)})" if have else ""
    why += f"; {_listed(refused, names)} refused" if refused else ""
    missing = needed - len(have)
    raise QuorumMissing(
        "quorum-missing",
        f"{missing} more approval{'s are' if missing > 1 else ' is'} needed",
        why=why,
        hint="exclave approve REQUEST --as FOLDER   # by another custodian",
    )


def _listed(ids: Iterable[str], names: Mapping[str, str]) -> str:
    return ", ".join(names.get(one, one) for one in ids)
