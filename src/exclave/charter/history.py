"""A realm's charters from the first on: each signed by a threshold of the custodians before it and of its own.

The realm's id is the hash of the first charter, so a chain is trusted from an id that was read in a treaty or a
gazette, wherever the bytes came from. No clock takes part: a charter that is old still opens (a dark home cannot
issue a new one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exclave.charter import document
from exclave.charter.document import MAX_CHARTER_BYTES, Charter, Custodian
from exclave.crypto import sign
from exclave.crypto.hashing import sha256
from exclave.errors import QuorumMissing, Refused, Tampered
from exclave.types import RegisterId


@dataclass(frozen=True, slots=True)
class History:
    """Verified charters, versions 1, 2, ... without a hole, and the notes they came in."""

    charters: tuple[Charter, ...]
    notes: tuple[bytes, ...]

    @property
    def newest(self) -> Charter:
        """The charter in force, as far as this party knows."""
        return self.charters[-1]

    @property
    def realm(self) -> str:
        """The realm's id, hex."""
        return self.charters[0].hash

    def extended(self, note: bytes) -> History:
        """The history with its next version. Raises Tampered, Refused, QuorumMissing; then nothing has changed."""
        charter = _successor(self.newest, self.realm, note)
        _judge_change(self.charters, charter)
        return History((*self.charters, charter), (*self.notes, note))


def verify(realm: str, notes: Iterable[bytes]) -> History:
    """The history that begins with the charter whose hash is `realm`. Versions in order, none missing.

    Raises Tampered, Refused, QuorumMissing.
    """
    rows = iter(notes)
    first = next(rows, None)
    if first is None:
        raise _bad("there is none")
    text = _text(first)
    if sha256(text).hex() != realm:
        raise _bad("the first charter is not the one that this realm's id names")
    charter = document.parse(text)
    if charter.version != 1:
        raise _bad("the realm's id names a charter that is not the first")
    require_signatures(first, charter.custodians, charter.threshold, charter.version)
    history = History((charter,), (first,))
    for note in rows:
        history = history.extended(note)
    return history


def require_signatures(note: bytes, custodians: Iterable[Custodian], threshold: int, version: int) -> None:
    """Raises QuorumMissing unless `threshold` of the custodians signed `note`, counted by person."""
    people = [one.sign for one in custodians]
    _, names = sign.signed_by(note, people)
    if len(names) < threshold:
        raise QuorumMissing(
            "charter-unsigned",
            f"Charter {version} is not in force",
            why=f"{len(names)} of its custodians signed where {threshold} must",
            hint="exclave explain charter-unsigned",
        )


def _successor(before: Charter, realm: str, note: bytes) -> Charter:
    """The next charter: the old custodians are asked before a word of it is believed."""
    text = _text(note)
    require_signatures(note, before.custodians, before.threshold, before.version + 1)
    charter = document.parse(text)
    if charter.version != before.version + 1:
        raise _bad(f"version {charter.version} cannot follow version {before.version}")
    if charter.realm != realm or charter.previous != before.hash:
        raise _bad(f"version {charter.version} follows another charter than the one known here")
    require_signatures(note, charter.custodians, charter.threshold, charter.version)
    return charter


def _judge_change(past: tuple[Charter, ...], charter: Charter) -> None:
    """What may not change from any version to a later one: a pseudonym's keys, an epoch's key and custody."""
    people: dict[str, Custodian] = {one.id: one for old in past for one in old.custodians}
    owners = {key: one.id for one in people.values() for key in (one.sign.raw, one.share)}
    for one in charter.custodians:
        if people.get(one.id, one) != one or any(
            owners.get(key, one.id) != one.id for key in (one.sign.raw, one.share)
        ):
            raise _refused("new keys need a new pseudonym, and a pseudonym keeps its keys")
    epochs = {(one.id, one.epoch): one for old in past for one in old.registers}
    terms: dict[RegisterId, int] = {}
    for old in past:
        terms.update({one.id: max(one.term, terms.get(one.id, 0)) for one in old.registers})
    for entry in charter.registers:
        known = epochs.get((entry.id, entry.epoch))
        if known is not None and (known.key, known.custody) != (entry.key, entry.custody):
            raise _refused("the key of an epoch never changes; a new key is a new epoch")
        if charter.register(entry.id).term < terms.get(entry.id, 0):
            raise _refused("the term of a register goes back")


def _text(note: bytes) -> bytes:
    if len(note) > MAX_CHARTER_BYTES:
        raise _bad("it is too long")
    return sign.split(note)[0]


def _refused(why: str) -> Refused:
    return Refused(
        "charter-refused", "No charter may say this", why=why, hint="exclave explain charter-refused"
    )


def _bad(why: str) -> Tampered:
    return Tampered(
        "charter-invalid", "A charter cannot be trusted", why=why, hint="exclave explain charter-invalid"
    )
