"""A custodian answers: he sees what his own papers say about a request, then approves or refuses it."""

from __future__ import annotations

from dataclasses import dataclass

from exclave import instants
from exclave.custody import approval
from exclave.custody import request as requests
from exclave.custody.request import Request
from exclave.errors import Refused
from exclave.flows.custodian import Desk
from exclave.types import Instant


@dataclass(frozen=True, slots=True)
class Considered:
    """A request that is what it says: for this realm, under the charter in force, valid now."""

    desk: Desk
    request: Request
    registers: tuple[str, ...]
    embassy: str | None  # None: the annex names no such embassy

    def sentence(self) -> str:
        """What a signature will do, in one sentence."""
        names = " and ".join(filter(None, (", ".join(self.registers[:-1]), self.registers[-1])))
        if self.request.snapshot is not None:
            moment = f"at snapshot {self.request.snapshot}"
        elif self.request.at is not None:
            moment = f"as of {instants.to_text(self.request.at)[:19]}Z"
        else:
            moment = "at the newest snapshot"
        where = self.embassy or "an embassy that the annex does NOT name"
        until = instants.to_text(self.request.not_after)[:19]
        return (
            f"{self.desk.name} lets {where} open {names} of {self.desk.papers.annex.realm} "
            f'{moment}, until {until}Z, for this reason: "{self.request.reason}"'
        )


def consider(desk: Desk, text: bytes, now: Instant) -> Considered:
    """Judge a request by the custodian's own papers. Raises Tampered, Refused, NotThere."""
    request = requests.parse(text)
    requests.check(request, desk.papers.charter, now)
    annex = desk.papers.annex
    names = tuple(annex.registers[one.register] for one in request.registers)
    return Considered(desk, request, names, annex.embassy(request.embassy))


def approve(considered: Considered, *, now: Instant, unnamed_embassy: bool = False) -> bytes:
    """The signed approval. Raises Tampered when a share is not the one he was given.

    An embassy that the annex does not name needs `unnamed_embassy`, so that no script agrees to one unseen.
    """
    if considered.embassy is None and not unnamed_embassy:
        raise Refused(
            "embassy-unnamed",
            "This request comes from an embassy that the annex does not name",
            why="anyone who holds the annex could have written it",
            hint="exclave approve REQUEST --as FOLDER --unnamed-embassy   # after a call back",
        )
    desk, request = considered.desk, considered.request
    return approval.approve(
        request,
        desk.papers.records_for(request),
        custodian=desk.id,
        share_seed=desk.share_seed,
        signer=desk.signer,
        at=now,
    )


def refuse(considered: Considered, *, now: Instant, reason: str) -> bytes:
    """The signed refusal."""
    if not reason.isprintable() or len(reason) > requests.REASON_LIMIT:
        raise Refused(
            "request-wrong",
            "This reason cannot be recorded",
            why=f"it is one printable line of at most {requests.REASON_LIMIT} characters",
            hint="exclave approve --help",
        )
    desk = considered.desk
    return approval.refuse(considered.request, custodian=desk.id, signer=desk.signer, at=now, reason=reason)
