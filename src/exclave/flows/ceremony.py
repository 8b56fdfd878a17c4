"""The ceremony: custodians and a realm are made in one room, or registers are added to a realm that has them.

Everything is made and proven in memory first; then custodians' folders, home's write keys, the papers, and last
what hosts may hold. Run it on a machine that is not connected and not kept: for a moment it knows every key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from exclave import codec, instants, keyfiles
from exclave.charter import annex as annexes
from exclave.charter import document
from exclave.charter import history as histories
from exclave.charter.annex import SALT_BYTES, Annex
from exclave.charter.document import Charter, Custodian
from exclave.crypto.hashing import sha256
from exclave.crypto.sign import SEED_BYTES, Signer, Verifier
from exclave.custody import ceremony
from exclave.custody.ceremony import NewEpoch
from exclave.custody.request import Wanted
from exclave.errors import ExclaveError, Misconfigured, QuorumMissing
from exclave.flows import custodian as desks
from exclave.flows import papers as folders
from exclave.flows.custodian import Desk
from exclave.flows.papers import Papers
from exclave.stores.base import Store
from exclave.types import Instant, RegisterId

TRANSCRIPT = b"exclave/ceremony/v1"
NAME_LIMIT = 62


@dataclass(frozen=True, slots=True)
class Home:
    """Where home keeps what the ceremony makes."""

    keys: Path
    charter: Path
    annex: Path


@dataclass(frozen=True, slots=True)
class Held:
    """What came of a ceremony. `unreached`: embassies that do not have the papers yet, and why."""

    papers: Papers
    transcript: bytes  # a note, signed by every custodian present
    added: tuple[RegisterId, ...]
    unreached: Mapping[str, ExclaveError]


def hold(
    *,
    realm: str,
    people: Sequence[str],
    threshold: int,
    registers: Mapping[RegisterId, str],
    home: Home,
    out: Path,
    stores: Mapping[str, Store],
    now: Instant,
) -> Held:
    """The first ceremony: `people` become custodians with a folder each in `out`. Raises Misconfigured, Refused."""
    _check_names(people)
    document.check_threshold(threshold, len(people))
    if not registers:
        raise Misconfigured(
            "nothing-to-do",
            "The ceremony has nothing to make",
            why="there is no register to make a key for",
            hint="exclave register add --help",
        )
    if (home.charter / f"{1:08x}.note").exists():
        raise Misconfigured(
            "realm-exists",
            "This home has a charter already",
            why=f"{home.charter} holds it",
            hint="exclave ceremony --as FOLDER ...   # adds the registers that have no key yet",
        )
    for name in people:
        desks.check_free(out / name)
    writer = _writer(home)
    made = [ceremony.new_custodian(os.urandom) for _ in people]
    public = [one.public for one in made]
    names = {one.public.id: name for one, name in zip(made, people, strict=True)}
    epochs = _epochs(registers, writer, threshold, public, {one.public.id: one.share_seed for one in made})
    annex = annexes.encode(Annex(realm, dict(registers), names, tuple(stores), os.urandom(SALT_BYTES)))
    text = document.compose(
        issued=now,
        threshold=threshold,
        custodians=public,
        registers=[one.entry for one in epochs],
        annex=sha256(annex).hex(),
    )
    signers = [one.signer() for one in made]
    history = histories.verify(document.parse(text).realm, [_signed(text, signers)])
    papers = folders.assemble(history, annex, _records(epochs, signers))
    transcript = _transcript(papers.charter, epochs, signers, now)
    for person in made:
        desks.furnish(out / names[person.public.id], person, papers, _exports(epochs, person.public.id))
    _keep(papers, epochs, home, out, transcript)
    return Held(papers, transcript, tuple(registers), _place(papers, stores))


def extend(
    *,
    present: Sequence[Desk],
    registers: Mapping[RegisterId, str],
    papers: Papers,
    home: Home,
    out: Path,
    stores: Mapping[str, Store],
    now: Instant,
) -> Held:
    """Add `registers`, and the names of `stores`, to a realm: a new charter, signed by the custodians present.

    `papers` are home's. All custodians get a share; `hand_out` brings the papers to those absent. Raises
    QuorumMissing, Misconfigured.
    """
    old = papers.charter
    seats = {desk.id: desk for desk in present}
    if len(seats) < old.threshold:
        raise QuorumMissing(
            "charter-unsigned",
            "A new charter needs more custodians",
            why=f"{old.threshold} must sign, {len(seats)} {'is' if len(seats) == 1 else 'are'} here",
            hint="exclave ceremony --as FOLDER --as FOLDER ...",
        )
    writer = _writer(home)
    identities = {desk.id: desk.share_seed for desk in seats.values()}
    epochs = _epochs(registers, writer, old.threshold, old.custodians, identities)
    names = papers.annex
    annex = annexes.encode(
        Annex(
            names.realm,
            {**names.registers, **registers},
            names.custodians,
            tuple(dict.fromkeys((*names.embassies, *stores))),
            os.urandom(SALT_BYTES),
        )
    )
    text = document.compose(
        realm=old.realm,
        version=old.version + 1,
        previous=old.hash,
        issued=now,
        threshold=old.threshold,
        custodians=old.custodians,
        registers=[*old.registers, *(one.entry for one in epochs)],
        annex=sha256(annex).hex(),
    )
    signers = [desk.signer for desk in seats.values()]
    history = papers.history.extended(_signed(text, signers))
    new = folders.assemble(history, annex, {**papers.notes, **_records(epochs, signers)})
    transcript = _transcript(new.charter, epochs, signers, now)
    _keep(new, epochs, home, out, transcript)
    for desk in seats.values():
        desks.file_papers(desk.folder, new, _exports(epochs, desk.id))
    return Held(new, transcript, tuple(registers), _place(new, stores))


def hand_out(*, present: Sequence[Desk], papers: Papers, stores: Mapping[str, Store]) -> Held:
    """Bring custodians' folders and embassies' stores up to home's papers; makes nothing. May be repeated."""
    for desk in present:
        if desk.papers.history.notes != papers.history.notes[: len(desk.papers.history.notes)]:
            raise Misconfigured(
                "other-realm",
                f"{desk.folder} holds other charters than home",
                why="a custodian's papers are only ever added to",
                hint="exclave explain other-realm",
            )
        desks.file_papers(desk.folder, papers, {})
    return Held(papers, b"", (), _place(papers, stores))


def _epochs(
    registers: Mapping[RegisterId, str],
    writer: Verifier,
    threshold: int,
    custodians: Sequence[Custodian],
    identities: Mapping[str, bytes],
) -> list[NewEpoch]:
    return [
        ceremony.new_epoch(
            register,
            writer=writer,
            term=1,
            threshold=threshold,
            custodians=custodians,
            chance=os.urandom,
            identities=identities,
        )
        for register in registers
    ]


def _keep(papers: Papers, epochs: Sequence[NewEpoch], home: Home, out: Path, transcript: bytes) -> None:
    """Home's part, the charter last: while it is missing, no ceremony has taken place here."""
    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in epochs:
        secret = keyfiles.encode_write_keys(one.entry, id_key=one.id_key, index_key=one.index_key)
        folders.create(keyfiles.write_keys_path(home.keys, one.entry), secret)
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders.create(out / f"ceremony-{papers.charter.version:08x}.note", transcript)
    folders.save(papers, home.charter, home.annex)


def _place(papers: Papers, stores: Mapping[str, Store]) -> dict[str, ExclaveError]:
    failed: dict[str, ExclaveError] = {}
    for name, store in stores.items():
        try:
            folders.place(papers, store)
        except ExclaveError as error:  # told to the caller; the papers are at home and can be placed again
            failed[name] = error
    return failed


def _transcript(
    charter: Charter, epochs: Sequence[NewEpoch], signers: Sequence[Signer], now: Instant
) -> bytes:
    """What was made and what was proven, for those present to sign; it names nobody and holds no secret."""
    fields = {
        "at": instants.to_text(now),
        "charter": charter.hash,
        "custodians": [one.id for one in charter.custodians],
        "epochs": [
            {
                "custody": one.record.hash,
                "epoch": one.entry.epoch,
                "key": one.record.key.hex(),
                "register": one.entry.id,
                "set": one.record.set.hex(),
            }
            for one in epochs
        ],
        "present": [one.verifier.name for one in signers],
        "proven": ["every-share-committed", "present-custodians-opened-theirs", "shares-rebuild-the-key"],
        "realm": charter.realm,
        "threshold": charter.threshold,
        "version": charter.version,
    }
    return _signed(TRANSCRIPT + b"\n" + codec.encode(fields) + b"\n", signers)


def _records(epochs: Sequence[NewEpoch], signers: Sequence[Signer]) -> dict[Wanted, bytes]:
    return {Wanted(one.entry.id, one.entry.epoch): _signed(one.record_text, signers) for one in epochs}


def _exports(epochs: Sequence[NewEpoch], custodian: str) -> dict[str, bytes]:
    return {f"{one.entry.id}-{one.entry.epoch}.age": one.exports[custodian] for one in epochs}


def _signed(text: bytes, signers: Sequence[Signer]) -> bytes:
    return text + b"\n" + b"".join(one.signature_lines(text) for one in signers)


def _writer(home: Home) -> Verifier:
    seed = keyfiles.read_secret(home.keys / keyfiles.WRITER_SEED, SEED_BYTES)
    return Signer(keyfiles.writer_name(seed), seed).verifier


def _check_names(people: Sequence[str]) -> None:
    for name in people:
        if (
            not 0 < len(name) <= NAME_LIMIT
            or not name.isprintable()
            or "/" in name
            or name.startswith((".", "-"))
        ):
            raise Misconfigured(
                "custodian-name-wrong",
                f"{name!r} cannot be a custodian's name",
                why=f"it is also a folder's: 1 to {NAME_LIMIT} printable characters, no slash, no dot at the start",
                hint="exclave ceremony --help",
            )
    if len(set(people)) != len(people):
        raise Misconfigured(
            "custodian-name-wrong",
            "Two custodians have one name",
            why="each needs a folder of his own",
            hint="exclave ceremony --help",
        )
