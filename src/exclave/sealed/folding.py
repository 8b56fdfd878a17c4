"""Folding a chain of manifests, oldest first, into the complete tree of one snapshot. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from exclave.crypto import hashing
from exclave.errors import Tampered
from exclave.listing import SIZE, Extra
from exclave.sealed import folders
from exclave.sealed.commits import Pack
from exclave.sealed.folders import Folder, Ints
from exclave.sealed.intake import LIST_KEY_PURPOSE
from exclave.sealed.manifest import Head
from exclave.sealed.opening import FolderChange, PackTable, Record


@dataclass(slots=True)
class Tree:
    """A snapshot: its folders by path, the packs they lie in by number, and its head."""

    folders: dict[bytes, Folder] = field(default_factory=dict[bytes, Folder])
    packs: dict[int, Pack] = field(default_factory=dict[int, Pack])
    digests: dict[bytes, bytes] = field(default_factory=dict[bytes, bytes])
    head: Head | None = None


def apply(tree: Tree, records: Iterable[Record]) -> None:
    """Change `tree` by all records of one manifest, in order; its head comes last. Raises Tampered."""
    head: Head | None = None
    for path, some in groupby(records, key=_folder_path):
        for record in some if path is None else [_joined([r for r in some if isinstance(r, FolderChange)])]:
            if head is not None:
                raise _bad("something follows the head")
            match record:
                case Head():
                    head = record
                case PackTable():
                    tree.packs.update((pack.number, pack) for pack in record.packs)
                case FolderChange():
                    folder = record.rows.path
                    tree.folders[folder] = _changed(tree.folders.get(folder), record)
                    tree.digests[folder] = record.digest
    if head is None:
        raise _bad("a manifest without a head")
    for gone in head.gone:
        tree.folders.pop(gone, None)
        tree.digests.pop(gone, None)
    tree.head = head


def check(tree: Tree) -> None:
    """The folded tree is what the writer sealed: every folder's digest and the root. Raises Tampered."""
    if tree.head is None:
        raise _bad("a manifest without a head")
    list_key = hashing.derive(tree.head.id_key, LIST_KEY_PURPOSE)
    for path, folder in tree.folders.items():
        if folders.folder_digest(folder, list_key) != tree.digests[path]:
            raise _bad("a folder does not have the digest that its manifest names")
    if folders.root_digest(list(tree.digests.items()), list_key) != tree.head.root:
        raise _bad("the whole does not have the integrity root that its manifest names")


def _folder_path(record: Record) -> bytes | None:
    return record.rows.path if isinstance(record, FolderChange) else None


def _joined(changes: list[FolderChange]) -> FolderChange:
    """The records of one folder as one."""
    if len(changes) == 1:
        return changes[0]
    rows = [change.rows for change in changes]
    return FolderChange(
        _concatenated(rows),
        np.concatenate([change.patched for change in changes]),
        changes[0].removed,
        changes[-1].digest,
    )


def _changed(prior: Folder | None, change: FolderChange) -> Folder:
    if prior is None:
        if change.patched.any() or change.removed:
            raise _bad("a change to a folder that was not there")
        return change.rows
    rows = _without_patches(prior, change) if change.patched.any() else change.rows
    replaced = set(rows.names) | set(change.removed)
    kept = np.array([row for row, name in enumerate(prior.names) if name not in replaced], dtype=np.int64)
    both = _concatenated([prior.rows(kept), rows])
    order = sorted(range(len(both.names)), key=both.names.__getitem__)
    return both.rows(np.array(order, dtype=np.int64))


def _without_patches(prior: Folder, change: FolderChange) -> Folder:
    """The change's rows with every patch carried out: complete runs everywhere."""
    at = {name: row for row, name in enumerate(prior.names)}
    rows, starts, prior_starts = change.rows, change.rows.run_starts(), prior.run_starts()
    counts = rows.run_counts.copy()
    pieces: list[tuple[Ints, Ints, Ints]] = []
    for row, name in enumerate(rows.names):
        mine = slice(int(starts[row]), int(starts[row + 1]))
        runs = rows.run_refs[mine], rows.run_lens[mine], rows.run_ats[mine]
        if change.patched[row]:
            before = at.get(name, -1)
            page = int(rows.page_bytes[row])
            if before < 0 or page == 0 or prior.page_bytes[before] != page:
                raise _bad("a patch to a file that was not there, or was cut otherwise")
            old = slice(int(prior_starts[before]), int(prior_starts[before + 1]))
            refs = folders.references_of(prior.run_refs[old], prior.run_lens[old])
            runs = _patched(refs, runs, -(-int(rows.stats[row, SIZE]) // page))
            counts[row] = len(runs[0])
        pieces.append(runs)
    refs, lens, ats = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Folder(
        rows.path, rows.names, rows.stats, rows.page_bytes, counts, refs, lens, ats, rows.digests, rows.extras
    )


def _patched(before: Ints, runs: tuple[Ints, Ints, Ints], pages: int) -> tuple[Ints, Ints, Ints]:
    if pages > len(before) + int(runs[1].sum()):
        raise _bad("a patch that leaves pages without content")
    refs = np.full(pages, -1, np.int64)
    shared = min(pages, len(before))
    refs[:shared] = before[:shared]
    for first, count, at in zip(*(column.tolist() for column in runs), strict=True):
        if at + count > pages:
            raise _bad("a patch beyond the end of its file")
        refs[at : at + count] = np.arange(first, first + count)
    if (refs < 0).any():
        raise _bad("a patch that leaves pages without content")
    return folders.runs_of(refs, np.arange(pages, dtype=np.int64))


def _concatenated(parts: list[Folder]) -> Folder:
    extras: dict[int, Extra] = {}
    before = 0
    for part in parts:
        extras |= {before + row: extra for row, extra in part.extras.items()}
        before += len(part.names)
    return Folder(
        parts[0].path,
        [name for part in parts for name in part.names],
        np.concatenate([part.stats for part in parts]),
        np.concatenate([part.page_bytes for part in parts]),
        np.concatenate([part.run_counts for part in parts]),
        np.concatenate([part.run_refs for part in parts]),
        np.concatenate([part.run_lens for part in parts]),
        np.concatenate([part.run_ats for part in parts]),
        np.concatenate([part.digests for part in parts]),
        extras,
    )


def _bad(why: str) -> Tampered:
    return Tampered("manifest-invalid", "A snapshot cannot be put together", why=why, hint="exclave verify")
