"""What an activation did, as a file beside this party's state: evidence for people, and how to end it later."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exclave import instants
from exclave.errors import NotThere, Tampered
from exclave.types import Instant, RegisterId

SCHEMA = "exclave/activation-record/1"
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Served:
    """One register that was brought up. `service` is the runtime's name of what serves it, empty when only laid out."""

    name: str
    id: RegisterId
    kind: str
    snapshot: int
    consistent_at: Instant
    gaps: int
    place: Path
    service: str
    address: str
    pid: int
    phases: dict[str, float]  # seconds, in order
    ready_seconds: float  # from the command to serving
    checks: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True)
class Activation:
    """One run of `exclave activate`. `dark_since` is None when nobody said when home went dark."""

    request: str  # hash of the approved request, hex
    reason: str
    custodians: tuple[str, ...]
    began: Instant
    dark_since: Instant | None
    ended: Instant | None
    registers: tuple[Served, ...]

    def rpo_seconds(self, served: Served) -> float:
        """What is lost at most: from the snapshot's moment to the moment home went dark (or the command)."""
        return max(0.0, ((self.dark_since or self.began) - served.consistent_at) / SECOND)

    def rto_seconds(self) -> float:
        """From the command to the last register serving."""
        return max((served.ready_seconds for served in self.registers), default=0.0)


def document(activation: Activation) -> dict[str, Any]:
    """The record as plain values, for JSON."""
    return {
        "schema": SCHEMA,
        "request": activation.request,
        "reason": activation.reason,
        "custodians": list(activation.custodians),
        "began": instants.to_text(activation.began),
        "dark_since": _text(activation.dark_since),
        "ended": _text(activation.ended),
        "rto_seconds": round(activation.rto_seconds(), 3),
        "registers": [
            asdict(served)
            | {
                "place": str(served.place),
                "consistent_at": instants.to_text(served.consistent_at),
                "rpo_seconds": round(activation.rpo_seconds(served), 3),
                "ready_seconds": round(served.ready_seconds, 3),
                "phases": {name: round(seconds, 3) for name, seconds in served.phases.items()},
            }
            for served in activation.registers
        ],
    }


def save(folder: Path, activation: Activation) -> Path:
    """Write the record durably under the request's hash, replacing an earlier state of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{activation.request[:16]}.json"
    draft = path.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(document(activation), stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    return path


def load_all(folder: Path) -> list[Activation]:
    """Every record in `folder`, oldest first. Raises Tampered for one that cannot be read."""
    found: list[Activation] = []
    for path in folder.glob("*.json"):
        try:
            found.append(_from(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, KeyError, TypeError) as error:
            raise Tampered(
                "activation-record-damaged", f"{path} cannot be read", why=str(error), hint=f"look at {path}"
            ) from error
    return sorted(found, key=lambda activation: activation.began)


def running(folder: Path) -> Activation:
    """The newest activation that was not ended. Raises NotThere."""
    open_ones = [activation for activation in load_all(folder) if activation.ended is None]
    if not open_ones:
        hint = "exclave activate --help"
        raise NotThere(
            "nothing-activated", "Nothing is activated here", why=f"no open record in {folder}", hint=hint
        )
    return open_ones[-1]


def _from(row: dict[str, Any]) -> Activation:
    return Activation(
        request=row["request"],
        reason=row["reason"],
        custodians=tuple(row["custodians"]),
        began=instants.from_text(row["began"]),
        dark_since=_instant(row["dark_since"]),
        ended=_instant(row["ended"]),
        registers=tuple(
            Served(
                name=one["name"],
                id=RegisterId(one["id"]),
                kind=one["kind"],
                snapshot=one["snapshot"],
                consistent_at=instants.from_text(one["consistent_at"]),
                gaps=one["gaps"],
                place=Path(one["place"]),
                service=one["service"],
                address=one["address"],
                pid=one["pid"],
                phases=one["phases"],
                ready_seconds=one["ready_seconds"],
                checks=one["checks"],
            )
            for one in row["registers"]
        ),
    )


def _text(instant: Instant | None) -> str | None:
    return None if instant is None else instants.to_text(instant)


def _instant(text: str | None) -> Instant | None:
    return None if text is None else instants.from_text(text)
