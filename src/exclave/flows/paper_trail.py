"""The public papers in one embassy: charters from the realm's first on, and the custody records that they name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from exclave.charter import history as charters
from exclave.charter.document import Charter
from exclave.crypto import sign
from exclave.errors import ExclaveError, Tampered

Fault = tuple[str, str, str]
"""Path, id, why."""


def faults(notes: Mapping[str, bytes], realm: str | None, needed: AbstractSet[str]) -> Iterator[Fault]:
    """What is wrong with the papers in `notes` (path -> stored bytes).

    `realm` is the realm's id (hex), `needed` the hashes of charters that commits here were made under.
    """
    found: dict[str, Charter] = {}
    history: charters.History | None = None
    for path in sorted(path for path in notes if path.startswith("charter/")):
        if realm is None:
            break  # nothing here says whose charters these should be
        try:
            history = (
                charters.verify(realm, [notes[path]]) if history is None else history.extended(notes[path])
            )
        except ExclaveError as error:
            yield path, "charter-invalid", error.why or error.what
            break
        found[history.newest.hash] = history.newest
    for missing in sorted(needed - found.keys()):
        why = f"commits here were made under a charter (SHA-256 {missing}) that is not here"
        yield "charter/", "object-missing", why
    records = {
        f"custody/{entry.id}/{entry.epoch}": entry.custody
        for charter in found.values()
        for entry in charter.registers
    }
    for path, digest in records.items():
        if path not in notes:
            yield path, "object-missing", "the charter names it, and it is not here"
        elif _text_hash(notes[path]) != digest:
            yield path, "object-damaged", "not the record that the charter names"


def _text_hash(note: bytes) -> str:
    try:
        return hashlib.sha256(sign.split(note)[0]).hexdigest()
    except Tampered:
        return ""
