"""One snapshot in the making: from the first slab of a register's content to the signed commit."""

from __future__ import annotations

from exclave.catalog import Catalog, NextCatalog
from exclave.crypto import hashing
from exclave.embassies.inspect import History
from exclave.flows import resuming
from exclave.flows.ahead import ahead
from exclave.flows.home import Home, Protected
from exclave.flows.sealing_line import SealingLine
from exclave.index_files import ChunkIndex
from exclave.listing import Listing
from exclave.positions import Position
from exclave.registers.base import Capture, Event, SameFolder
from exclave.registers.slabs import Slab
from exclave.sealed import commits, container, manifest, names
from exclave.sealed.assembly import Assembly
from exclave.sealed.commits import Commit, Part
from exclave.sealed.intake import LIST_KEY_PURPOSE, Intake
from exclave.sealed.manifest import MAX_DEPTH, Head
from exclave.sealed.packstream import PackStream
from exclave.session import Pending
from exclave.types import ObjectId

AHEAD = 3  # batches of events read ahead of sealing
MANIFEST_LEVEL = 3  # zstd: manifests are small, and kept for ever


def _is_slab(event: Event) -> bool:
    return isinstance(event, Slab)


class Snapshot:
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
