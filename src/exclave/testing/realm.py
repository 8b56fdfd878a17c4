"""A whole realm in memory, for tests: custodians with their secrets, registers, papers; real keys, made at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exclave.charter import annex as annexes
from exclave.charter import document
from exclave.charter import history as histories
from exclave.charter.annex import SALT_BYTES, Annex
from exclave.charter.document import Charter
from exclave.crypto import seal
from exclave.crypto.hashing import sha256
from exclave.crypto.open import public_key_of
from exclave.crypto.sign import Signer, generate_seed
from exclave.custody import approval, ceremony, request
from exclave.custody.ceremony import NewCustodian, NewEpoch
from exclave.custody.record import Record
from exclave.custody.request import Request, Wanted
from exclave.flows import papers as folders
from exclave.flows.papers import Papers
from exclave.sealed import container
from exclave.types import Instant, RegisterId

NOW = Instant(1_790_000_000 * 10**9)
HOUR = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class Asking:
    """A request with its session's secret."""

    text: bytes
    request: Request
    seed: bytes = field(repr=False)

    def seed_file(self, folder: Path) -> Path:
        """The secret in a file of its own, mode 0600."""
        path = folder / f"{self.request.hash}.seed"
        folders.create(path, self.seed)
        return path


@dataclass(frozen=True, slots=True)
class TestRealm:
    """Everything of a realm, secrets included."""

    __test__ = False

    people: tuple[NewCustodian, ...]
    writer: Signer
    epochs: tuple[NewEpoch, ...]
    papers: Papers

    @property
    def charter(self) -> Charter:
        """The newest charter."""
        return self.papers.charter

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """All register epochs."""
        return tuple(Wanted(one.entry.id, one.entry.epoch) for one in self.epochs)

    @property
    def records(self) -> dict[Wanted, Record]:
        """All custody records."""
        return {wanted: self.papers.record(wanted) for wanted in self.wanted}

    def ask(
        self,
        *,
        registers: Sequence[Wanted] | None = None,
        at: Instant | None = None,
        snapshot: int | None = None,
        not_before: Instant = NOW,
        not_after: Instant | None = None,
        charter: Charter | None = None,
    ) -> Asking:
        """A request for all registers, or some."""
        seed = os.urandom(32)
        text = request.compose(
            charter or self.charter,
            registers=self.wanted if registers is None else registers,
            at=at,
            snapshot=snapshot,
            embassy=self.papers.annex.embassy_hash("luxembourg"),
            key=public_key_of(seed),
            reason="home is dark",
            nonce=os.urandom(16),
            not_before=not_before,
            not_after=Instant(not_before + HOUR) if not_after is None else not_after,
        )
        return Asking(text, request.parse(text), seed)

    def approve(self, person: int, asking: Asking, *, at: Instant = NOW) -> bytes:
        """The approval of one custodian, by his place."""
        one = self.people[person]
        return approval.approve(
            asking.request,
            self.records,
            custodian=one.public.id,
            share_seed=one.share_seed,
            signer=one.signer(),
            at=at,
        )

    def refuse(self, person: int, asking: Asking, *, at: Instant = NOW) -> bytes:
        """The refusal of one custodian, by his place."""
        one = self.people[person]
        return approval.refuse(
            asking.request, custodian=one.public.id, signer=one.signer(), at=at, reason="no call"
        )

    def header(self, place: int = 0, *, kind: int = container.PACK, number: int = 1) -> tuple[bytes, bytes]:
        """The header of an object of the register at this place, and the content key in it."""
        entry = self.epochs[place].entry
        head = container.Header(
            kind, 4096, bytes.fromhex(self.charter.realm), entry.id, entry.epoch, entry.term, number, 1
        )
        fixed, recipient, key = head.fixed(), seal.recipient_id(entry.key), os.urandom(32)
        return fixed + recipient + seal.capsule(key, entry.key, container.capsule_info(fixed, recipient)), key


def make(*, people: int = 5, threshold: int = 3, registers: Sequence[str] = ("land", "gazette")) -> TestRealm:
    """A realm as `flows.ceremony.hold` makes it, but in memory."""
    made = tuple(ceremony.new_custodian(os.urandom) for _ in range(people))
    writer = Signer("writer-test", generate_seed())
    epochs = tuple(
        ceremony.new_epoch(
            RegisterId(os.urandom(16).hex()),
            writer=writer.verifier,
            term=1,
            threshold=threshold,
            custodians=[one.public for one in made],
            chance=os.urandom,
            identities={one.public.id: one.share_seed for one in made},
        )
        for _ in registers
    )
    annex = annexes.encode(
        Annex(
            "Testland",
            {one.entry.id: name for one, name in zip(epochs, registers, strict=True)},
            {one.public.id: f"person {at}" for at, one in enumerate(made)},
            ("luxembourg",),
            os.urandom(SALT_BYTES),
        )
    )
    text = document.compose(
        issued=NOW,
        threshold=threshold,
        custodians=[one.public for one in made],
        registers=[one.entry for one in epochs],
        annex=sha256(annex).hex(),
    )
    signers = [one.signer() for one in made]
    history = histories.verify(document.parse(text).realm, [signed(text, signers)])
    notes = {Wanted(one.entry.id, one.entry.epoch): signed(one.record_text, signers) for one in epochs}
    return TestRealm(made, writer, epochs, folders.assemble(history, annex, notes))


def signed(text: bytes, signers: Sequence[Signer]) -> bytes:
    """A note with the signatures of these."""
    return text + b"\n" + b"".join(one.signature_lines(text) for one in signers)
