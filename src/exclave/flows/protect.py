"""Protect: one consistent reading of a register becomes a snapshot that `copies` embassies hold durably.

Order is the crash safety (docs/spec/store.md, section 7): packs, manifest, index, commit, then home's own state,
and only then may the source forget. A crash before the commit leaves unreferenced objects, which the next run
finds in its session file and uses; after it, everything. A commit that was signed is noted before it is published:
no other one may take its number while an embassy that cannot be asked may have it (`flows.outstanding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from exclave import positions
from exclave.catalog import Catalog, NextCatalog, RememberedListings
from exclave.crypto import hashing
from exclave.crypto.sign import Signer
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.fanout import Fanout
from exclave.embassies.inspect import History, Known
from exclave.errors import Misconfigured, Tampered, Unreachable
from exclave.flows import catching_up, resuming
from exclave.flows.ahead import ahead
from exclave.flows.outstanding import Outstanding
from exclave.flows.sealing_line import SealingLine
from exclave.index_files import ChunkIndex
from exclave.listing import Listing
from exclave.locks import exclusive
from exclave.positions import Position
from exclave.registers.base import Capture, Event, Register, SameFolder
from exclave.registers.slabs import Slab, SlabPool
from exclave.sealed import commits, container, manifest, names
from exclave.sealed.assembly import Assembly
from exclave.sealed.commits import Commit, Part
from exclave.sealed.intake import LIST_KEY_PURPOSE, Intake
from exclave.sealed.keys import WriteKeys
from exclave.sealed.manifest import MAX_DEPTH, Head
from exclave.sealed.packstream import PackStream
from exclave.session import Pending, Session
from exclave.types import Gap, Instant, ObjectId

SLABS = 6
AHEAD = 3
MANIFEST_LEVEL = 3


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


class Told(Protocol):
    """Progress, as far as a flow tells it."""

    def phase(self, what: str, total: int = 0) -> None:
        """A new phase begins; `total` bytes if known."""
        ...

    def told(self, files: int, done: int) -> None:
        """So much of it is done."""
        ...


def protect(
    home: Home, embassies: Sequence[Embassy], *, copies: int, patience_seconds: float, told: Told
) -> Protected:
    """Make the next snapshot of a register. Durable at `copies` embassies on return.

    Raises Busy when another process protects this register, Unreachable when fewer than `copies` embassies can
    hold it (nothing is lost: run again), Refused("writer-fenced") when another writer has taken over, Tampered when
    the source is damaged or the embassies show less than this home has signed.
    """
    if copies > len(embassies):
        raise Misconfigured(
            "copies-impossible",
            f"{copies} embassies must hold a snapshot, and there are only {len(embassies)}",
            why="what was asked for could never be reached",
            hint="exclave embassy add --help   # or a smaller number for `copies` in exclave.toml",
        )
    with exclusive(home.folder / "lock", what=f"protecting {home.name}"), ExitStack() as stack:
        told.phase("look at the embassies")
        catalog = _catalog(home)
        index = stack.enter_context(ChunkIndex(home.folder / "index" / home.keys.epoch))
        history, sites = _look(home, embassies, catalog, index, copies, patience_seconds, told)
        resuming.fill_index(index, history, home.keys, sites, remembered=catalog.position is not None)
        session = Session(home.folder / "session")
        fanout = stack.enter_context(Fanout(sites, copies=copies, patience_seconds=patience_seconds))
        next_pack = catalog.position.next_pack if catalog.position else 0
        resumed = resuming.resume(session, history, home.keys, index, sites, fanout, next_pack=next_pack)
        spare = len(sites) - copies  # an embassy that hangs keeps one buffer (embassies.fanout)
        line = stack.enter_context(SealingLine(home.keys, home.boot_id, fanout, session, spare_buffers=spare))
        with home.register.capture(RememberedListings(catalog), SlabPool(SLABS), told.told) as capture:
            told.phase("read and seal", home.register.size_hint())
            snapshot = _Snapshot(home, catalog, history, index, line, resumed)
            snapshot.read(capture)
            told.phase("make it durable abroad")
            snapshot.seal_manifest(capture)
            fanout.settled()
            path, note = snapshot.commit(capture)
            outstanding = Outstanding(home.folder / "signed")
            outstanding.keep(note)
            holders = fanout.publish(path, note)
            index.commit()
            session.clear()
            snapshot.remember(capture, note)
            outstanding.clear()
            capture.settle()
        lacking = {one.name for one in embassies} - holders
        # Those that were dark at the start wait for the next run: reading the whole history costs too much for them.
        behind = {name: why for name, why in history.unreachable.items() if name in lacking}
        if lacking - behind.keys():
            told.phase("bring the others up to date")
            behind = catching_up.catch_up(
                home.keys.register, home.signer.verifier, embassies, told, patience_seconds=patience_seconds
            )
        return snapshot.result(capture, frozenset(one.name for one in embassies) - behind.keys(), behind)


def _catalog(home: Home) -> Catalog:
    catalog = Catalog.load(home.folder / "catalog")
    if catalog.position is not None and catalog.position.epoch != home.keys.epoch:
        return Catalog(home.folder / "catalog")  # another sealing key: a new, full beginning
    return catalog


def _look(
    home: Home, embassies: Sequence[Embassy], catalog: Catalog, index: ChunkIndex, copies: int,
    patience_seconds: float, told: Told,
) -> tuple[History, list[Embassy]]:  # fmt: skip
    """The chain of commits abroad, and the embassies that have all of it.

    Those that do not would otherwise get a commit without the ones before it; they are brought up to date first
    when too few others are left, else after the snapshot. Raises Tampered when the chain is shorter than, or
    differs from, what this home signed.
    """
    follows = catalog.position
    known = None
    if follows is not None and follows.depth < MAX_DEPTH and len(index) and not index.dropped:
        known = Known(follows.term, follows.sequence, follows.commit_hash)
    register, verifier = home.keys.register, home.signer.verifier
    history = inspect.history(embassies, register, verifier, known=known)
    signed = positions.load(catalog.folder)  # also when the next snapshot cannot follow on it
    if signed is not None:
        _refuse_rollback(home, history, signed)
    if Outstanding(home.folder / "signed").publish(history, verifier, embassies):
        history = inspect.history(embassies, register, verifier, known=known)
    sites = catching_up.in_step(embassies, history)
    if len(sites) < copies:
        told.phase("bring embassies up to date")
        behind = catching_up.catch_up(register, verifier, embassies, told, patience_seconds=patience_seconds)
        sites = [one for one in embassies if one.name not in behind]
        if len(sites) < copies:
            raise Unreachable(
                "copies-missing",
                f"{home.name} must be held by {copies} embassies, and only {len(sites)} can take it",
                why="; ".join(f"{name}: {why}" for name, why in behind.items()),
                hint="exclave doctor   # nothing is lost; run protect again when they answer",
            )
    return history, sites


def _refuse_rollback(home: Home, history: History, signed: Position) -> None:
    """Raise unless the embassies show what this home signed last: another writer's history must not begin here."""
    if (
        history.hash_of(signed.sequence) == signed.commit_hash
        and max(history.heads.values()) >= signed.sequence
    ):
        return
    what = f"The embassies do not show snapshot {signed.sequence} of {home.name} as this home signed it"
    if history.unreachable:
        raise Unreachable(
            "newest-unreachable",
            what,
            why="; ".join(f"{name}: {why}" for name, why in history.unreachable.items()),
            hint="exclave doctor   # nothing is lost; run protect again when they answer",
        )
    raise Tampered(
        "embassies-rolled-back",
        what,
        why="every embassy has less, or something else, than this home made durable there",
        hint=f"exclave where {home.name}   # then keep the stores as they are, and investigate",
    )


def _is_slab(event: Event) -> bool:
    return isinstance(event, Slab)


class _Snapshot:
    """One run's state, from the first slab to the commit."""

    def __init__(
        self, home: Home, catalog: Catalog, history: History, index: ChunkIndex, line: SealingLine,
        resumed: resuming.Resumed,
    ) -> None:  # fmt: skip
        self._home = home
        self._history = history
        self._line = line
        self._resumed = resumed
        self._prior = catalog if catalog.position and catalog.position.depth < MAX_DEPTH else None
        self._sequence = history.head_sequence + 1
        self._next = NextCatalog(catalog)
        self._full = self._prior is None
        keys = home.keys
        self._stream = PackStream(
            first_number=resumed.next_pack, take_buffer=line.take_buffer, hand_over=line.pack
        )
        self._records = PackStream(
            first_number=0,
            take_buffer=line.take_buffer,
            hand_over=line.part(container.MANIFEST, self._sequence),
            level=MANIFEST_LEVEL,
        )
        self._catalog = catalog
        self._intake = Intake(keys.id_key, index, self._stream, catalog.page_map)
        self._assembly = Assembly(
            intake=self._intake,
            prior=catalog,
            next_tree=self._next,
            emit=self._records.place,
            full=self._full,
            list_key=hashing.derive(keys.id_key, LIST_KEY_PURPOSE),
        )

    def read(self, capture: Capture) -> None:
        """Everything the register has."""
        with ahead(capture.changes(), AHEAD, heavy=_is_slab) as events:
            for event in events:
                match event:
                    case Slab():
                        self._intake.take(event)
                        event.release()
                    case Listing():
                        self._assembly.told(event)
                    case SameFolder():
                        self._assembly.same(event.path)
        self._intake.finish()
        self._stream.finish()
        self._line.flush()

    def seal_manifest(self, capture: Capture) -> None:
        """The manifest and the index, after all packs."""
        if self._full:
            self._assembly.tell_all(self._next.load)
        packs = self._packs()
        parent = self._prior.position.sequence if self._prior is not None and self._prior.position else 0
        known = [
            pack for commit in self._epoch_commits() if commit.sequence > parent for pack in commit.packs
        ]
        for record in manifest.packs_records([*known, *(pending.pack for pending in packs)]):
            self._records.place(record)
        self._records.place(manifest.head_record(self._head(capture)))
        self._records.finish()
        ids = PackStream(
            first_number=0,
            take_buffer=self._line.take_buffer,
            hand_over=self._line.part(container.INDEX, self._sequence),
        )
        for pending in packs:
            ids.place(manifest.index_record(pending.pack.number, pending.ids))
        ids.finish()
        self._line.flush()

    def commit(self, capture: Capture) -> tuple[str, bytes]:
        """Path and note of the commit."""
        keys = self._home.keys
        commit = Commit(
            realm=keys.realm.hex(),
            register=keys.register,
            epoch=keys.epoch,
            term=keys.term,
            sequence=self._sequence,
            previous=self._history.head_hash,
            at=capture.consistent_at(),
            manifest=tuple(self._line.parts[container.MANIFEST]),
            index=tuple(self._line.parts[container.INDEX]),
            packs=tuple(pending.pack for pending in self._packs()),
            full=self._full,
            gaps=len(capture.gaps()),
            charter=self._home.charter,
        )
        return names.commit(keys.register, keys.term, self._sequence), commits.encode(
            commit, self._home.signer
        )

    def remember(self, capture: Capture, note: bytes) -> None:
        """The commit is abroad: home's catalogue follows."""
        depth = 0 if self._prior is None or self._prior.position is None else self._prior.position.depth + 1
        numbers = [pending.pack.number for pending in self._packs()]
        self._next.publish(
            Position(
                epoch=self._home.keys.epoch,
                term=self._home.keys.term,
                sequence=self._sequence,
                commit_hash=hashing.sha256(note).hex(),
                at=capture.consistent_at(),
                gaps=len(capture.gaps()),
                manifest=tuple((part.id, part.size) for part in self._line.parts[container.MANIFEST]),
                depth=depth,
                next_pack=max([self._resumed.next_pack, *(number + 1 for number in numbers)]),
            )
        )

    def result(self, capture: Capture, holders: frozenset[str], behind: dict[str, str]) -> Protected:
        """What to tell the caller."""
        totals = self._assembly.totals()
        return Protected(
            register=self._home.name,
            sequence=self._sequence,
            consistent_at=capture.consistent_at(),
            position=capture.position(),
            holders=holders,
            behind=behind,
            files=totals["files"],
            bytes=totals["bytes"],
            new_bytes=self._intake.new_bytes,
            stored_bytes=self._line.sealed_bytes,
            full=self._full,
            gaps=tuple(capture.gaps()),
        )

    def _packs(self) -> list[Pending]:
        return [*self._resumed.pending, *self._line.packs]

    def _epoch_commits(self) -> list[Commit]:
        return [commit for commit in self._history.commits if commit.epoch == self._home.keys.epoch]

    def _head(self, capture: Capture) -> Head:
        keys = self._home.keys
        parents: tuple[Part, ...] = ()
        depth = 0
        if self._prior is not None and self._prior.position is not None:
            signed = self._prior.position
            parents = tuple(Part(ObjectId(part_id), size) for part_id, size in signed.manifest)
            depth = signed.depth + 1
        return Head(
            register=self._home.name,
            kind=self._home.register.kind,
            term=keys.term,
            sequence=self._sequence,
            consistent_at=capture.consistent_at(),
            position=capture.position(),
            parents=parents,
            depth=depth,
            id_key=keys.id_key,
            index_key=keys.index_key,
            environment=capture.environment(),
            gaps=tuple(capture.gaps()),
            gone=self._assembly.gone(),
            totals=self._assembly.totals(),
            root=self._assembly.root(),
        )
