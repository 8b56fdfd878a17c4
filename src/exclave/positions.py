"""Which snapshot a party last knew to be the newest: small, quick to read, enough to tell a rollback."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from exclave.crypto import hashing
from exclave.types import Instant

HEAD_FILE = "head.json"


@dataclass(frozen=True, slots=True)
class Position:
    """The last snapshot that home made, and what the next one needs to follow it."""

    epoch: str
    term: int
    sequence: int
    commit_hash: str
    at: Instant  # when its content was consistent
    gaps: int
    manifest: tuple[tuple[str, int], ...]  # parts: id, size in bytes
    depth: int
    next_pack: int


def load(folder: Path) -> Position | None:
    """The position that a catalogue folder names, or None when there is none or it is damaged."""
    try:
        return from_document(decode_head((folder / HEAD_FILE).read_bytes())["position"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None


def encode_head(fields: dict[str, Any]) -> bytes:
    """The head file: JSON that carries its own checksum, because one wrong digit in it would be believed."""
    return json.dumps({**fields, "sum": _sum(fields)}).encode()


def decode_head(data: bytes) -> dict[str, Any]:
    """The inverse of `encode_head`. Raises ValueError, KeyError, TypeError when it is damaged."""
    parsed = json.loads(data)
    if not isinstance(parsed, dict):
        raise ValueError("the head file is damaged")
    fields = cast("dict[str, Any]", parsed)
    if fields.pop("sum") != _sum(fields):
        raise ValueError("the head file is damaged")
    return fields


def _sum(fields: dict[str, Any]) -> str:
    return hashing.sha256(json.dumps(fields, sort_keys=True).encode()).hex()


def save(folder: Path, position: Position) -> None:
    """Note what a party that is not home has seen; losing it only means that the next look reads more."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f"{HEAD_FILE}.new"
    draft.write_bytes(encode_head({"position": document(position)}))
    draft.replace(folder / HEAD_FILE)


def document(position: Position) -> dict[str, Any]:
    """As it is written in the head file."""
    return {
        "epoch": position.epoch,
        "term": position.term,
        "sequence": position.sequence,
        "commit_hash": position.commit_hash,
        "at": position.at,
        "gaps": position.gaps,
        "manifest": [list(part) for part in position.manifest],
        "depth": position.depth,
        "next_pack": position.next_pack,
    }


def from_document(fields: dict[str, Any]) -> Position:
    """The inverse of `document`. Raises KeyError, TypeError, ValueError when malformed."""
    parts = tuple((str(part_id), int(size)) for part_id, size in fields["manifest"])
    return Position(
        epoch=str(fields["epoch"]),
        term=int(fields["term"]),
        sequence=int(fields["sequence"]),
        commit_hash=str(fields["commit_hash"]),
        at=Instant(int(fields["at"])),
        gaps=int(fields["gaps"]),
        manifest=parts,
        depth=int(fields["depth"]),
        next_pack=int(fields["next_pack"]),
    )
