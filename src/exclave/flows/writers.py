"""Who writes which register: taken from verified papers, and remembered so that quick verbs need not verify again.

What is remembered holds only for the very bytes of the papers that were verified, under the same realm id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave.codec import b64, unb64
from exclave.crypto.sign import VERIFIER_BYTES, Verifier
from exclave.errors import Tampered
from exclave.types import RegisterId

_FILE = "writers.json"


@dataclass(frozen=True, slots=True)
class Written:
    """A register of the charter: its name by the annex, and the writers of all of its epochs."""

    register: RegisterId
    name: str
    writers: tuple[Verifier, ...]


def digest(realm: str | None, folder: Path, annex: Path) -> str:
    """SHA-256 over the papers as they lie there, and the realm's id, in hex."""
    whole = hashlib.sha256((realm or "").encode())
    for path in [*sorted(folder.rglob("*.note")), annex]:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError:
            data = b"unreadable"  # never remembered: whoever verifies the papers says why
        whole.update(hashlib.sha256(str(path).encode()).digest() + hashlib.sha256(data).digest())
    return whole.hexdigest()


def recall(state: Path, papers: str) -> list[Written] | None:
    """What was taken from the papers with this digest, or None when that is not known."""
    try:
        note: dict[str, Any] = json.loads((state / _FILE).read_bytes())
        if note["papers"] != papers:
            return None
        return [
            Written(
                RegisterId(str(row["register"])),
                str(row["name"]),
                tuple(Verifier(str(name), unb64(raw, size=VERIFIER_BYTES)) for name, raw in row["writers"]),
            )
            for row in note["registers"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, Tampered):
        return None


def remember(state: Path, papers: str, rows: Sequence[Written]) -> None:
    """Keep what was taken from verified papers. A state folder that cannot be written only costs time."""
    note = {
        "papers": papers,
        "registers": [
            {
                "register": row.register,
                "name": row.name,
                "writers": [[one.name, b64(one.raw)] for one in row.writers],
            }
            for row in rows
        ],
    }
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = state / f"{_FILE}.new"
        draft.write_text(json.dumps(note), encoding="ascii")
        draft.replace(state / _FILE)
    except OSError:
        return
