"""Manifest records: a folder's changes, the packs they lie in, and the head (docs/spec/store.md, section 5). Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exclave import codec, instants
from exclave.codec import b64
from exclave.listing import TRAVELLING
from exclave.sealed.commits import Pack, Part
from exclave.sealed.folders import Folder, Ints, extras_document, names_column
from exclave.types import Gap, Instant

VERSION = 1
MAX_DEPTH = 32
ROWS_PER_RECORD = 20_000
RUNS_PER_RECORD = 200_000


@dataclass(frozen=True, slots=True)
class Head:
    """What a snapshot is, as only a quorum may know it. The last record of a manifest."""

    register: str
    kind: str
    term: int
    sequence: int
    consistent_at: Instant
    position: str
    parents: tuple[Part, ...]
    depth: int
    id_key: bytes = field(repr=False)
    index_key: bytes = field(repr=False)
    environment: dict[str, Any]
    gaps: tuple[Gap, ...]
    gone: tuple[bytes, ...]
    totals: dict[str, int]
    root: bytes


@dataclass(frozen=True, slots=True)
class Patch:
    """New references for some pages of a row that was in the parent: `at` page numbers, `refs` one each, ascending."""

    at: Ints
    refs: Ints


def head_record(head: Head) -> bytes:
    """The head as a record."""
    return _record(
        {
            "record": "head",
            "version": VERSION,
            "register": head.register,
            "kind": head.kind,
            "term": head.term,
            "sequence": head.sequence,
            "consistent_at": instants.to_text(head.consistent_at),
            "position": head.position,
            "parents": [{"id": part.id, "size": part.size} for part in head.parents],
            "depth": head.depth,
            "id_key": b64(head.id_key),
            "index_key": b64(head.index_key),
            "environment": head.environment,
            "gaps": [{"path": b64(gap.path), "why": gap.why} for gap in head.gaps],
            "gone": [b64(path) for path in head.gone],
            "totals": head.totals,
            "root": head.root.hex(),
        }
    )


def packs_records(packs: list[Pack]) -> Iterator[bytes]:
    """The table of packs, in records of bounded size."""
    for start in range(0, len(packs), ROWS_PER_RECORD):
        some = packs[start : start + ROWS_PER_RECORD]
        yield _record(
            {"record": "packs", "rows": len(some)},
            np.array([pack.number for pack in some], dtype="<i8").tobytes(),
            b"".join(bytes.fromhex(pack.id) for pack in some),
            np.array([pack.size for pack in some], dtype="<i8").tobytes(),
        )


def index_record(pack: int, ids: bytes) -> bytes:
    """One pack's chunk ids (16 bytes each, in slot order), for an index part."""
    return _record({"record": "ids", "pack": pack, "rows": len(ids) // 16}, ids)


def folder_records(
    changes: Folder, digest: bytes, removed: list[bytes], patches: dict[int, Patch]
) -> Iterator[bytes]:
    """A folder's changed rows, in records of bounded size. `patches` replaces the runs of some rows."""
    rows = len(changes.names)
    starts = changes.run_starts()
    first = 0
    while True:
        last = min(rows, first + ROWS_PER_RECORD)
        limit = int(starts[first]) + RUNS_PER_RECORD
        within = int(np.searchsorted(starts, limit, side="right")) - 1
        last = max(min(last, within), first + 1) if rows else 0
        some = changes.rows(np.arange(first, last, dtype=np.int64)) if last - first < rows else changes
        moved = {row - first: patch for row, patch in patches.items() if first <= row < last}
        yield _folder_record(some, digest, removed if first == 0 else [], moved)
        if last >= rows:
            return
        first = last


def _folder_record(changes: Folder, digest: bytes, removed: list[bytes], patches: dict[int, Patch]) -> bytes:
    patched = np.zeros(len(changes.names), np.uint8)
    if patches:
        patched[list(patches)] = 1
        changes = _with_patches(changes, patches)
    names = names_column(changes.names)
    return _record(
        {
            "record": "folder",
            "path": b64(changes.path),
            "rows": len(changes.names),
            "names": len(names),
            "removed": [b64(name) for name in removed],
            "extras": extras_document(changes.extras),
            "runs": len(changes.run_refs),
            "digest": digest.hex(),
        },
        names,
        np.ascontiguousarray(changes.stats[:, :TRAVELLING].T, dtype="<i8").tobytes(),
        changes.page_bytes.astype("<i8").tobytes(),
        patched.tobytes(),
        changes.run_counts.astype("<i8").tobytes(),
        np.diff(changes.run_refs, prepend=np.int64(0)).astype("<i8").tobytes(),
        changes.run_lens.astype("<i8").tobytes(),
        changes.run_ats.astype("<i8").tobytes(),
        np.ascontiguousarray(changes.digests).tobytes(),
    )


def _with_patches(changes: Folder, patches: dict[int, Patch]) -> Folder:
    """The folder with the runs of some rows replaced by their patches."""
    starts = changes.run_starts()
    counts = changes.run_counts.copy()
    runs = (changes.run_refs, changes.run_lens, changes.run_ats)
    pieces: tuple[list[Ints], list[Ints], list[Ints]] = ([], [], [])
    done = 0
    for row in sorted(patches):
        moved = _patch_runs(patches[row])
        counts[row] = len(moved[0])
        for piece, old, new in zip(pieces, runs, moved, strict=True):
            piece += [old[done : starts[row]], new]
        done = int(starts[row + 1])
    refs, lens, ats = (np.concatenate([*piece, old[done:]]) for piece, old in zip(pieces, runs, strict=True))
    return Folder(
        changes.path, changes.names, changes.stats, changes.page_bytes, counts, refs, lens, ats,
        changes.digests, changes.extras,
    )  # fmt: skip


def _patch_runs(patch: Patch) -> tuple[Ints, Ints, Ints]:
    """A patch as runs: (first reference, count, page); a run breaks where pages or references do."""
    if not len(patch.at):
        return patch.at, patch.at, patch.at
    broken = (np.diff(patch.at) != 1) | (np.diff(patch.refs) != 1)
    first = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(broken) + 1])
    return patch.refs[first], np.diff(np.append(first, len(patch.at))), patch.at[first]


def _record(document: dict[str, Any], *columns: bytes) -> bytes:
    line = codec.encode(document)
    return b"".join([struct.pack(">I", len(line)), line, *columns])
