"""Folding manifests: patches, replaced and removed rows; a hostile chain is refused."""

from __future__ import annotations

import numpy as np
import pytest

from exclave.crypto import hashing
from exclave.errors import Tampered
from exclave.listing import MODE, SIZE, STATS
from exclave.sealed import folders, folding, manifest, opening
from exclave.sealed.folders import Folder
from exclave.sealed.folding import Tree
from exclave.sealed.intake import LIST_KEY_PURPOSE
from exclave.sealed.manifest import Head, Patch
from exclave.sealed.opening import Record
from exclave.types import Instant

KEY = bytes(32)
LIST_KEY = hashing.derive(KEY, LIST_KEY_PURPOSE)
PAGE = 8192


def _folder(path: bytes, rows: dict[bytes, list[int]]) -> Folder:
    """Paged files with one reference a page."""
    count = len(rows)
    stats = np.zeros((count, STATS), np.int64)
    stats[:, MODE] = 0o100644
    stats[:, SIZE] = [len(refs) * PAGE for refs in rows.values()]
    runs = [
        folders.runs_of(np.array(refs, np.int64), np.arange(len(refs), dtype=np.int64))
        for refs in rows.values()
    ]
    digests = [hashing.sha256(repr(refs).encode()) for refs in rows.values()]
    return Folder(
        path,
        list(rows),
        stats,
        np.full(count, PAGE, np.int64),
        np.array([len(one[0]) for one in runs], np.int64),
        *(np.concatenate([one[column] for one in runs]) for column in range(3)),
        np.frombuffer(b"".join(digests), np.uint8).reshape(count, 32),
    )


def _head(root: bytes, gone: tuple[bytes, ...] = ()) -> Head:
    return Head(
        "land", "files", 1, 1, Instant(0), "", (), 0, KEY, KEY, {}, (), gone, {}, root
    )  # fmt: skip


def _read(*records: bytes) -> list[Record]:
    return [opening.read_record(memoryview(record)) for record in records]


def _full(folder: Folder) -> list[Record]:
    digest = folders.folder_digest(folder, LIST_KEY)
    head = _head(folders.root_digest([(folder.path, digest)], LIST_KEY))
    return _read(*manifest.folder_records(folder, digest, [], {}), manifest.head_record(head))


def _refs(tree: Tree, path: bytes, name: bytes) -> list[int]:
    folder = tree.folders[path]
    row = folder.names.index(name)
    starts = folder.run_starts()
    runs = slice(int(starts[row]), int(starts[row + 1]))
    return folders.references_of(folder.run_refs[runs], folder.run_lens[runs]).tolist()


def test_a_patch_replaces_extends_and_cuts() -> None:
    tree = Tree()
    folding.apply(tree, _full(_folder(b"", {b"a": [10, 11, 12, 13], b"b": [20], b"gone": [30]})))
    folding.check(tree)
    now = _folder(b"", {b"a": [10, 99, 12, 13, 50, 51], b"b": [20]})
    digest = folders.folder_digest(now, LIST_KEY)
    patch = Patch(np.array([1, 4, 5]), np.array([99, 50, 51]))
    changed = now.rows(np.array([0]))
    records = manifest.folder_records(changed, digest, [b"gone"], {0: patch})
    head = _head(folders.root_digest([(b"", digest)], LIST_KEY))
    folding.apply(tree, _read(*records, manifest.head_record(head)))
    folding.check(tree)
    assert tree.folders[b""].names == [b"a", b"b"]
    assert _refs(tree, b"", b"a") == [10, 99, 12, 13, 50, 51]
    shorter = _folder(b"", {b"a": [10, 99], b"b": [20]})
    digest = folders.folder_digest(shorter, LIST_KEY)
    none = Patch(np.zeros(0, np.int64), np.zeros(0, np.int64))
    records = manifest.folder_records(shorter.rows(np.array([0])), digest, [], {0: none})
    head = _head(folders.root_digest([(b"", digest)], LIST_KEY))
    folding.apply(tree, _read(*records, manifest.head_record(head)))
    folding.check(tree)
    assert _refs(tree, b"", b"a") == [10, 99]


@pytest.mark.parametrize(
    ("at", "refs"), [([6], [1]), ([4], [1]), ([1 << 40], [1])], ids=["beyond", "hole", "far beyond"]
)
def test_impossible_patches_are_refused(at: list[int], refs: list[int]) -> None:
    tree = Tree()
    folding.apply(tree, _full(_folder(b"", {b"a": [10, 11]})))
    now = _folder(b"", {b"a": [0] * 6})
    patch = Patch(np.array(at), np.array(refs))
    records = _read(
        *manifest.folder_records(now, bytes(32), [], {0: patch}), manifest.head_record(_head(bytes(32)))
    )
    with pytest.raises(Tampered):
        folding.apply(tree, records)


def test_a_huge_size_is_refused_before_memory_is_taken() -> None:
    tree = Tree()
    folding.apply(tree, _full(_folder(b"", {b"a": [10, 11]})))
    now = _folder(b"", {b"a": [10, 11]})
    now.stats[0, SIZE] = 1 << 60
    patch = Patch(np.array([0]), np.array([1]))
    records = _read(
        *manifest.folder_records(now, bytes(32), [], {0: patch}), manifest.head_record(_head(bytes(32)))
    )
    with pytest.raises(Tampered):
        folding.apply(tree, records)


def test_a_patch_without_anything_before_it_is_refused() -> None:
    patch = Patch(np.array([0]), np.array([1]))
    folder = _folder(b"", {b"a": [10]})
    records = _read(
        *manifest.folder_records(folder, bytes(32), [], {0: patch}), manifest.head_record(_head(bytes(32)))
    )
    with pytest.raises(Tampered):
        folding.apply(Tree(), records)


def test_a_changed_attribute_content_or_path_breaks_a_digest() -> None:
    for damage in ("stats", "digests", "path", "root"):
        tree = Tree()
        folding.apply(tree, _full(_folder(b"d", {b"a": [10, 11]})))
        folding.check(tree)
        folder = tree.folders[b"d"]
        match damage:
            case "stats":
                folder.stats[0, MODE] = 0o100777
            case "digests":
                folder.digests = np.zeros((1, 32), np.uint8)
            case "path":
                tree.folders[b"e"] = tree.folders.pop(b"d")
                tree.digests[b"e"] = tree.digests.pop(b"d")
            case _:
                tree.head = _head(bytes(32))
        with pytest.raises(Tampered):
            folding.check(tree)


def test_long_folders_take_several_records_and_fold_the_same() -> None:
    rows = {b"f%06d" % number: [number * 10] for number in range(manifest.ROWS_PER_RECORD * 2 + 5)}
    folder = _folder(b"", rows)
    records = list(manifest.folder_records(folder, folders.folder_digest(folder, LIST_KEY), [], {}))
    assert len(records) == 3
    tree = Tree()
    folding.apply(tree, _full(folder))
    folding.check(tree)
    assert tree.folders[b""].names == folder.names


def test_nothing_may_follow_the_head() -> None:
    records = _full(_folder(b"", {b"a": [1]}))
    with pytest.raises(Tampered):
        folding.apply(Tree(), [*records, *records])
    with pytest.raises(Tampered):
        folding.apply(Tree(), records[:-1])


def test_records_cut_short_or_garbled_never_do_anything_but_raise_tampered() -> None:
    folder = _folder(b"", {b"a": [10, 11], b"b": [1 << 40]})
    record = next(manifest.folder_records(folder, bytes(32), [], {}))
    for length in range(0, len(record), 7):
        with pytest.raises(Tampered):
            opening.read_record(memoryview(record[:length]))
    for at in range(0, len(record), 3):
        garbled = bytearray(record)
        garbled[at] ^= 0xFF
        try:
            opening.read_record(memoryview(bytes(garbled)))
        except Tampered:
            continue
