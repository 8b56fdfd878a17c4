"""What a verification found: plain values that a face prints or turns into JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """One bad thing in one embassy."""

    embassy: str
    path: str
    id: str  # object-missing, object-damaged, object-malformed, commit-invalid, history-forked, charter-invalid
    why: str


@dataclass(slots=True)
class Looked:
    """What was looked at in one embassy."""

    name: str
    objects: int = 0
    bytes: int = 0
    read_objects: int = 0
    read_bytes: int = 0
    unnamed: int = 0  # well-formed objects that no commit names: an interrupted run's, or somebody's junk
    heads: dict[str, int] = field(default_factory=dict[str, int])  # by register: its last good commit


@dataclass(frozen=True, slots=True)
class Report:
    """The result. Never green without fresh proof: what could not be read is `unknown`."""

    embassies: tuple[Looked, ...]
    problems: tuple[Problem, ...]
    unreachable: dict[str, str]
    newest: dict[str, int]  # by register: the last good commit that any embassy has
    sample: float | None

    @property
    def verdict(self) -> str:
        """`bad`, `unknown` (an embassy did not answer, or only a sample was read) or `good`."""
        if self.problems:
            return "bad"
        return "unknown" if self.unreachable or self.sample is not None else "good"

    def document(self) -> dict[str, Any]:
        """For `--json`: numbers, strings, lists and objects only, but for `sample`."""
        return {**asdict(self), "verdict": self.verdict}
