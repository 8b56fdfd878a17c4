"""When each embassy's copy of a register was last proven: read and compared byte by byte, in whole or as a sample."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave import instants
from exclave.errors import Tampered
from exclave.types import Instant, RegisterId


@dataclass(frozen=True, slots=True)
class Proof:
    """The last verification of one copy. `sample` is the part of the objects that was read, above 0, at most 1."""

    at: Instant
    sequence: int  # newest snapshot that was covered
    sample: float
    good: bool

    def whole(self) -> bool:
        """Whether every byte was read and was good."""
        return self.good and self.sample >= 1


def load(state: Path, register: RegisterId) -> dict[str, Proof]:
    """Proofs of a register by embassy. A damaged note counts as none: then it is not known."""
    try:
        rows: dict[str, Any] = json.loads(_path(state, register).read_text(encoding="utf-8"))
        return {
            name: Proof(
                instants.from_text(row["at"]), int(row["sequence"]), float(row["sample"]), row["good"] is True
            )
            for name, row in rows.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Tampered):
        return {}


def save(state: Path, register: RegisterId, proofs: Mapping[str, Proof]) -> None:
    """Note fresh proofs; those of other embassies stay. Durable on return.

    A good sample does not take the place of a proof of every byte.
    """
    before = load(state, register)
    fresh = {
        name: proof
        for name, proof in proofs.items()
        if not (proof.good and not proof.whole() and name in before and before[name].whole())
    }
    path = _path(state, register)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {
        name: {
            "at": instants.to_text(proof.at),
            "sequence": proof.sequence,
            "sample": proof.sample,
            "good": proof.good,
        }
        for name, proof in (before | fresh).items()
    }
    draft = path.with_suffix(".new")
    with draft.open("w", encoding="utf-8") as stream:
        json.dump(rows, stream, indent=1, sort_keys=True)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def _path(state: Path, register: RegisterId) -> Path:
    return state / "proofs" / f"{register}.json"
