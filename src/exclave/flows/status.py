"""Status: what can be restored from where, as the embassies show it now; never better than what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from exclave.crypto.sign import Verifier
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import Known
from exclave.errors import ExclaveError, Tampered
from exclave.positions import Position
from exclave.types import Instant, RegisterId


class Verdict(StrEnum):
    """How a register stands."""

    PROTECTED = "protected"  # the newest snapshot is at `copies` embassies or more
    THIN = "thin"  # it can be restored, but fewer embassies have the newest snapshot than asked
    UNPROTECTED = "unprotected"  # no embassy that answers has a snapshot
    ROLLED_BACK = "rolled back"  # the embassies show less, or something else, than was seen before
    UNKNOWN = "unknown"  # no embassy answers


@dataclass(frozen=True, slots=True)
class Asked:
    """A register to ask about; `remembered` is what this party last knew of it."""

    name: str
    register: RegisterId
    writers: Sequence[Verifier]
    remembered: Position | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one register stands."""

    name: str
    verdict: Verdict
    sequence: int
    at: Instant | None  # state of its content that the newest snapshot gives back
    gaps: int
    holders: tuple[str, ...]
    behind: dict[str, str]  # embassies without the newest snapshot, and why
    why: str = ""
    newest: Known | None = None  # verified now: what a next look may start from


def look(asked: Asked, embassies: Sequence[Embassy], *, copies: int) -> Standing:
    """Ask every embassy. Cheap on long histories: only commits after the remembered one are read and verified."""
    seen = asked.remembered
    known = Known(seen.term, seen.sequence, seen.commit_hash) if seen else None
    try:
        history = inspect.history(embassies, asked.register, asked.writers, known=known)
    except Tampered as error:
        return _without(asked, embassies, Verdict.ROLLED_BACK, str(error))
    except ExclaveError as error:
        return _without(asked, embassies, Verdict.UNKNOWN, str(error))
    newest = max(history.heads.values())
    if seen is not None and newest < seen.sequence:
        why = f"they show snapshot {newest} at most, and {seen.sequence} was there before"
        silent = ", ".join(sorted(history.unreachable))
        if silent:  # one of these may be the one that has it
            return _without(asked, embassies, Verdict.UNKNOWN, f"{why}; no answer from {silent}")
        return _without(asked, embassies, Verdict.ROLLED_BACK, why)
    holders = tuple(sorted(name for name, head in history.heads.items() if head == newest and newest))
    behind = dict(history.unreachable)
    for name, head in history.heads.items():
        if head < newest:
            behind[name] = f"has snapshot {head} of {newest}" if head else "has nothing yet"
    behind |= {trouble.embassy: f"{trouble.path}: {trouble.why}" for trouble in history.troubles}
    last = history.links[-1].commit if history.links else None
    verdict = Verdict.PROTECTED if len(holders) >= copies else Verdict.THIN if newest else Verdict.UNPROTECTED
    return Standing(
        name=asked.name,
        verdict=verdict,
        sequence=newest,
        at=last.at if last else seen.at if seen else None,
        gaps=last.gaps if last else seen.gaps if seen else 0,
        holders=holders,
        behind=behind,
        newest=Known(last.term, last.sequence, history.head_hash) if last else known,
    )


def _without(asked: Asked, embassies: Sequence[Embassy], verdict: Verdict, why: str) -> Standing:
    behind = {embassy.name: why for embassy in embassies}
    return Standing(asked.name, verdict, 0, None, 0, (), behind, why)
