"""Restore: a snapshot, or a part of it, written out again and proved equal to what was sealed.

Order: commit -> chain of manifests -> packs, each read once in order -> files -> digests -> the register's own checks.
No index is needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exclave.crypto import hashing
from exclave.embassies.fetch import Fetcher
from exclave.errors import NotThere, Tampered
from exclave.flows.ahead import ahead
from exclave.flows.reading import SnapshotReader
from exclave.flows.told import Told
from exclave.listing import MODE, SIZE
from exclave.registers.base import Rebuilder, Rebuilt
from exclave.registers.files.rebuilding import TreeBuilder
from exclave.sealed import packing, plan, selecting
from exclave.sealed.chunking import EXTENT_BYTES
from exclave.sealed.commits import Commit
from exclave.sealed.folders import Folder
from exclave.sealed.folding import Tree
from exclave.sealed.keys import Opener
from exclave.sealed.manifest import Head
from exclave.sealed.packing import Contents
from exclave.sealed.plan import Piece, Plan
from exclave.sealed.proving import Prover
from exclave.types import Gap, Instant

AHEAD = 1  # packs opened ahead of the one that is being written


@dataclass(frozen=True, slots=True)
class Restored:
    """What was written, and how it was proved."""

    register: str
    kind: str
    sequence: int
    consistent_at: Instant
    position: str
    place: Path
    files: int
    bytes: int
    environment: dict[str, Any]
    gaps: tuple[Gap, ...]  # of the capture, then of the restore
    rebuilt: Rebuilt | None


def restore(
    commit: Commit,
    *,
    fetcher: Fetcher,
    opener: Opener,
    place: Path,
    only: bytes = b"",
    keep_owners: bool,
    rebuilder: Rebuilder | None,
    told: Told,
) -> Restored:
    """Write the snapshot of `commit` into `place` (created; must be empty). Durable and proved on return.

    `only` is a path in the register: that file or folder alone, without the rebuilder. Raises Tampered when anything
    differs from what was sealed (what was written stays for inspection, and must not be used), NotThere when
    `only` is not in the snapshot or an object is nowhere.
    """
    told.phase("read the manifest")
    reader = SnapshotReader(commit, fetcher, opener)
    tree = reader.tree()
    head = _head(tree)
    wanted = selecting.select(tree.folders, only) if only else tree.folders
    if not wanted:
        raise NotThere(
            "path-not-in-snapshot",
            f"Snapshot {commit.sequence} of {head.register} has no {only.decode(errors='backslashreplace')}",
            why="no file or folder of that name was captured then",
            hint=f"exclave snapshots {head.register}",
        )
    prover = Prover(head.id_key)
    with TreeBuilder(place, owners=head.environment.get("owners", {}), keep_owners=keep_owners) as builder:
        laid = _lay_out(wanted, builder, prover)
        told.phase("fetch, open and write", laid.bytes)
        _write(reader, tree, laid.plan, builder, prover, told)
        gaps = builder.finish()
    told.phase("prove what was written")
    _read_back(place, laid.paged, prover)
    _refuse_wrong(prover, place)
    rebuilt = None
    if rebuilder is not None and not only:
        told.phase("check")
        rebuilt = rebuilder.finish(place, head.environment)
    return Restored(
        register=head.register,
        kind=head.kind,
        sequence=commit.sequence,
        consistent_at=commit.at,
        position=head.position,
        place=place,
        files=laid.files,
        bytes=laid.bytes,
        environment=head.environment,
        gaps=(*head.gaps, *gaps),
        rebuilt=rebuilt,
    )


def _head(tree: Tree) -> Head:
    if tree.head is None:
        raise ValueError("a checked tree has a head")
    return tree.head


@dataclass(slots=True)
class _Laid:
    """What was laid out: the plan of its content, and where files cut by page are."""

    plan: Plan
    paged: dict[int, tuple[bytes, int]]  # file number -> path in the register, size in bytes
    files: int = 0
    bytes: int = 0


def _lay_out(wanted: dict[bytes, Folder], builder: TreeBuilder, prover: Prover) -> _Laid:
    """Make every folder and entry; plan the content."""
    laid = _Laid(Plan(), {})
    for path in sorted(wanted):
        folder = wanted[path]
        files = builder.folder(folder.listing())
        laid.plan.add(folder, files)
        laid.files += int(np.count_nonzero((folder.stats[:, MODE] & 0o170000) == stat.S_IFREG))
        for row in np.flatnonzero(files >= 0).tolist():
            number = int(files[row])
            prover.wanted[number] = folder.digests[row].tobytes()
            if folder.page_bytes[row]:
                inside = path + b"/" + folder.names[row] if path else folder.names[row]
                laid.paged[number] = inside, int(folder.stats[row, SIZE])
            laid.bytes += int(folder.stats[row, SIZE])
    return laid


def _write(
    reader: SnapshotReader, tree: Tree, work: Plan, builder: TreeBuilder, prover: Prover, told: Told
) -> None:
    written = pieces = 0
    with ahead(_opened(reader, tree, work), AHEAD) as packs:
        for plain, contents, runs in packs:
            frame, raw = -1, memoryview(b"")
            for piece in plan.pieces(runs, contents):
                if piece.frame != frame:
                    frame, raw = piece.frame, packing.read_frame(plain, contents, piece.frame)
                data = raw[piece.start : piece.stop]
                _put(builder, piece, data)
                if piece.paged:
                    prover.wrote_pages(piece.file, piece.offset, data)
                else:
                    prover.wrote(piece.file, piece.offset, data, piece.cuts)
                written += len(data)
                pieces += 1
            told.told(pieces, written)


def _put(builder: TreeBuilder, piece: Piece, data: memoryview) -> None:
    try:
        builder.write(piece.file, piece.offset, data)
    except ValueError as error:  # more, or other, bytes than the manifest's own sizes leave room for
        raise Tampered(
            "manifest-invalid",
            "A snapshot's sizes and its content do not belong together",
            why=str(error),
            hint="exclave verify",
        ) from error


def _opened(
    reader: SnapshotReader, tree: Tree, work: Plan
) -> Iterator[tuple[memoryview, Contents, list[plan.Run]]]:
    numbers = work.packs()
    if any(number not in tree.packs for number in numbers):
        raise Tampered(
            "manifest-invalid",
            "A snapshot refers to a pack that its manifest does not list",
            why="the manifest contradicts itself",
            hint="exclave verify",
        )
    plains = reader.packs([tree.packs[number] for number in numbers])
    for (_, runs), plain in zip(work.by_pack(), plains, strict=True):
        yield plain, packing.read_contents(plain), runs


def _read_back(place: Path, paged: dict[int, tuple[bytes, int]], prover: Prover) -> None:
    """Files whose pages came out of order, from many packs, are read back from disk and compared."""
    buffer = memoryview(bytearray(EXTENT_BYTES))
    for number in prover.finish({number: size for number, (_, size) in paged.items()}):
        extents: list[bytes] = []
        with open(os.fsencode(place) + b"/" + paged[number][0], "rb", buffering=0) as file:
            while size := _fill(file, buffer):
                extents.append(hashing.digest(buffer[:size], prover.id_key))
        prover.read_back(number, extents)


def _fill(file: Any, buffer: memoryview) -> int:
    size = 0
    while size < len(buffer) and (got := file.readinto(buffer[size:])):
        size += got
    return size


def _refuse_wrong(prover: Prover, place: Path) -> None:
    if prover.wrong or prover.wanted:
        raise Tampered(
            "restored-differs",
            f"{len(prover.wrong) + len(prover.wanted)} restored files are not what was sealed",
            why=f"their digests differ from the manifest's; what is in {place} must not be used",
            hint="exclave verify   # then restore an earlier snapshot, or from another embassy",
        )
