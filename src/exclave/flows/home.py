"""What home has of one register, and what one run of `protect` did with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from exclave.crypto.sign import Signer
from exclave.registers.base import Register
from exclave.sealed.keys import WriteKeys
from exclave.types import Gap, Instant


@dataclass(frozen=True, slots=True)
class Home:
    """What home has of one register: its source, its write keys, its memory. `folder` is private to the register."""

    name: str
    register: Register
    keys: WriteKeys
    signer: Signer
    charter: str  # SHA-256 of the charter, hex
    boot_id: bytes
    folder: Path


@dataclass(frozen=True, slots=True)
class Protected:
    """What one run did."""

    register: str
    sequence: int
    consistent_at: Instant
    position: str
    holders: frozenset[str]
    behind: dict[str, str]  # embassies that do not have it yet, and why
    files: int
    bytes: int
    new_bytes: int  # content that no earlier snapshot had
    stored_bytes: int  # sealed bytes sent to each embassy
    full: bool
    gaps: tuple[Gap, ...] = field(default=())
