"""Words shared by two packages or more. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

Buffer = bytes | bytearray | memoryview

RegisterId = NewType("RegisterId", str)  # 32 lower-case hex digits, random; the register's name abroad
EpochId = NewType("EpochId", str)  # 16 lower-case hex digits, random; one sealing key of one register
ObjectId = NewType("ObjectId", str)  # SHA-256 of the stored bytes, 64 lower-case hex digits
Instant = NewType("Instant", int)  # nanoseconds since 1970-01-01T00:00:00Z
Reference = NewType("Reference", int)  # where a chunk is: pack number * 2**20 + slot in the pack


@dataclass(frozen=True, slots=True)
class Gap:
    """Something that could not be captured (or restored): told in the manifest, counted in the commit, never silent."""

    path: bytes
    why: str
