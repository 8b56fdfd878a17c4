"""The port of a register: what changed, under which environment, and how to rebuild it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from exclave.listing import Listing
from exclave.registers.slabs import Slab, SlabPool
from exclave.types import Gap, Instant


@dataclass(frozen=True, slots=True)
class SameFolder:
    """Folder `path` has exactly the entries, attributes and content of the previous snapshot (not its subfolders)."""

    path: bytes


Event = Slab | Listing | SameFolder
"""Slabs come before the listing whose `content` names their ordinals. Each folder of the register is told once,
as `Listing` (complete) or `SameFolder`; a folder of the previous snapshot that is not told has gone."""


class Prior(Protocol):
    """What home remembers of the previous snapshot of this register; may know nothing."""

    def folder(self, path: bytes) -> Listing | None:
        """The complete listing of a folder in the previous snapshot (`content` is meaningless), or None."""
        ...


class Capture(Protocol):
    """One consistent reading of a register. Use once: `changes` to its end, then the rest."""

    def changes(self) -> Iterator[Event]:
        """Everything there is now, in data order. Raises Unreachable, Tampered (the source itself is damaged)."""
        ...

    def consistent_at(self) -> Instant:
        """The moment whose state a restore gives back: everything acknowledged before it is in. After `changes`."""
        ...

    def position(self) -> str:
        """The same moment in the register's own words (an LSN, a change counter), or an empty string."""
        ...

    def environment(self) -> dict[str, Any]:
        """What the register needs around it to live (versions, settings, roles...): codec-encodable, no secrets."""
        ...

    def gaps(self) -> list[Gap]:
        """What could not be captured."""
        ...

    def settle(self) -> None:
        """The snapshot is committed abroad: the source may forget what it kept for us. Called last, may be repeated."""
        ...


Told = Callable[[int, int], None]
"""Called now and then with (files, bytes) read so far, to feed a progress display."""


class Register(Protocol):
    """Something to keep alive. Adapters are built by `wiring` from configuration."""

    @property
    def kind(self) -> str:
        """`postgres`, `sqlite` or `files`; written into the manifest, picks the rebuilder abroad."""
        ...

    def capture(self, prior: Prior, slabs: SlabPool, told: Told) -> AbstractContextManager[Capture]:
        """Begin a reading; leaving the context releases every lock and temporary thing at the source."""
        ...

    def size_hint(self) -> int:
        """Bytes that a capture will probably read, cheaply found, for rate and ETA; 0 when unknown."""
        ...

    def doctor(self) -> list[Finding]:
        """Check the source without changing it: reachable, permitted, settings that capture needs."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check: `level` is `ok`, `warn` or `fail`; a finding that is not ok says the next command."""

    id: str
    level: str
    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A register restored into `place` and checked."""

    place: Path
    checks: list[Finding] = field(default_factory=list[Finding])


class Rebuilder(Protocol):
    """What a kind of register needs after its tree of files is back on disk."""

    def finish(self, place: Path, environment: dict[str, Any]) -> Rebuilt:
        """Make the restored tree at `place` ready to start, and check it. Raises Tampered when a check fails."""
        ...
