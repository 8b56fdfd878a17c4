"""A writer of well-formed stores without real content: signed commits, sealed-looking objects, quickly made."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from exclave.crypto import hashing
from exclave.crypto.sign import Signer
from exclave.embassies.embassy import Embassy
from exclave.sealed import commits, container, names
from exclave.sealed.commits import FIRST, Commit, Pack, Part
from exclave.stores.base import Store
from exclave.testing.stores import Troubled
from exclave.types import EpochId, Instant, ObjectId, RegisterId


class SealedWorld:
    """One register's writer. Bodies are random bytes: good for every check that needs no key."""

    def __init__(self, *, term: int = 1, signer: Signer | None = None) -> None:
        self.realm = secrets.token_hex(32)
        self.register = RegisterId(secrets.token_hex(16))
        self.epoch = EpochId(secrets.token_hex(8))
        self.term = term
        self.signer = signer or Signer("writer", secrets.token_bytes(64))
        self.sequence = 0
        self.previous = FIRST
        self.next_pack = 1

    def sealed(self, kind: int, number: int, *, plain_bytes: int = container.MIN_PLAIN_BYTES) -> bytes:
        """An object of this register with a well-formed header."""
        header = container.Header(
            kind, plain_bytes, bytes.fromhex(self.realm), self.register, self.epoch, self.term, number,
            0 if kind == container.INDEX else 1,
        )  # fmt: skip
        fixed = header.fixed()
        return fixed + secrets.token_bytes(header.object_bytes - len(fixed))

    def snapshot(self, *, packs: int = 1, plain_bytes: int = container.MIN_PLAIN_BYTES) -> dict[str, bytes]:
        """The next snapshot: path -> bytes in the order of writing, the commit last."""
        sequence = self.sequence + 1
        objects: dict[str, bytes] = {}
        rows: list[Pack] = []
        for _ in range(packs):
            data = self.sealed(container.PACK, self.next_pack, plain_bytes=plain_bytes)
            pack = Pack(hashing.object_id(data), self.next_pack, len(data))
            objects[names.pack(self.register, self.epoch, pack.id)] = data
            rows.append(pack)
            self.next_pack += 1
        manifest = self.sealed(container.MANIFEST, sequence)
        objects[names.manifest(self.register, self.epoch, hashing.object_id(manifest))] = manifest
        index = self.sealed(container.INDEX, sequence)
        objects[names.index(self.register, self.epoch, hashing.object_id(index))] = index
        path, note = self.commit(rows, [_part(manifest)], [_part(index)])
        self.sequence, self.previous = sequence, hashing.object_id(note)
        return {**objects, path: note}

    def commit(
        self, packs: Sequence[Pack] = (), manifest: Sequence[Part] = (), index: Sequence[Part] = ()
    ) -> tuple[str, bytes]:
        """Path and note of the next commit; signed anew each time it is called, without counting on."""
        sequence = self.sequence + 1
        commit = Commit(
            realm=self.realm,
            register=self.register,
            epoch=self.epoch,
            term=self.term,
            sequence=sequence,
            previous=self.previous,
            at=Instant(sequence * 1_000_000_000),
            manifest=tuple(manifest),
            index=tuple(index),
            packs=tuple(packs),
            full=sequence == 1,
            gaps=0,
            charter=FIRST,
        )
        return names.commit(self.register, self.term, sequence), commits.encode(commit, self.signer)

    def store(self, objects: dict[str, bytes], stores: Sequence[Store]) -> None:
        """Put them everywhere."""
        for store in stores:
            for path, data in objects.items():
                store.put(path, data)


def world(
    lengths: Sequence[int],
) -> tuple[SealedWorld, list[Embassy], list[Troubled], list[dict[str, bytes]]]:
    """Embassies `site0`, `site1`... that hold that many snapshots each of one register; and the snapshots."""
    made = SealedWorld()
    snapshots = [made.snapshot() for _ in range(max(lengths))]
    stores = [Troubled() for _ in lengths]
    for store, length in zip(stores, lengths, strict=True):
        for snapshot in snapshots[:length]:
            made.store(snapshot, [store])
    return made, [Embassy(f"site{n}", store) for n, store in enumerate(stores)], stores, snapshots


def _part(data: bytes) -> Part:
    return Part(ObjectId(hashing.object_id(data)), len(data))
