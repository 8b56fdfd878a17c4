"""What embassies' stores were seen to guarantee, kept in the state folder: never what they say of themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave import instants
from exclave.errors import Tampered
from exclave.stores.base import Guarantee, Probe
from exclave.types import Instant

NEEDED = frozenset({Guarantee.CREATE_ONLY, Guarantee.RANGES, Guarantee.LISTING})


@dataclass(frozen=True, slots=True)
class Probed:
    """The last probe of an embassy's store."""

    at: Instant
    kept: tuple[str, ...]
    broken: dict[str, str]

    def immutable(self) -> bool:
        """Whether a stolen client could neither replace nor delete what is stored there."""
        return {Guarantee.CREATE_ONLY, Guarantee.LOCKED} <= set(self.kept)


def save(state: Path, name: str, probe: Probe, at: Instant) -> Probed:
    """Keep the result of a probe."""
    folder = state / "probes"
    folder.mkdir(parents=True, exist_ok=True)
    broken = {str(guarantee): why for guarantee, why in probe.broken.items()}
    probed = Probed(at, tuple(sorted(str(guarantee) for guarantee in probe.kept)), broken)
    row = {"at": instants.to_text(at), "kept": list(probed.kept), "broken": broken}
    (folder / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return probed


def load(state: Path, name: str) -> Probed | None:
    """The last probe, or None when there was none (or its note is damaged: then it is not known)."""
    try:
        row: dict[str, Any] = json.loads((state / "probes" / f"{name}.json").read_text(encoding="utf-8"))
        kept = tuple(str(Guarantee(one)) for one in row["kept"])
        return Probed(instants.from_text(row["at"]), kept, dict(row["broken"]))
    except (OSError, ValueError, KeyError, TypeError, Tampered):
        return None


def kept(state: Path, name: str) -> frozenset[Guarantee]:
    """The guarantees seen at the last probe; none when there was none."""
    seen = load(state, name)
    return frozenset(Guarantee(one) for one in seen.kept) if seen else frozenset()
