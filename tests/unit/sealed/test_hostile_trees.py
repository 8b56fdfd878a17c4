"""A manifest that a stolen writer sealed and signed: numbers chosen to wrap, to reach far, to point nowhere."""

from __future__ import annotations

import numpy as np
import pytest

from exclave.crypto.sign import Signer
from exclave.errors import Tampered
from exclave.listing import MODE, SIZE, STATS, Extra
from exclave.sealed import commits, container, manifest, opening, selecting
from exclave.sealed.commits import FIRST, Commit, Pack, Part
from exclave.sealed.folders import Folder
from exclave.sealed.manifest import Head
from exclave.types import EpochId, Instant, ObjectId, RegisterId

PAGE = 8192
HUGE = (1 << 63) - 1


def _folder(path: bytes = b"", extras: dict[int, Extra] | None = None) -> Folder:
    """Four files of two runs each."""
    stats = np.zeros((4, STATS), np.int64)
    stats[:, MODE] = 0o100644
    stats[:, SIZE] = 3 * PAGE
    return Folder(
        path,
        [b"a", b"b", b"c", b"d"],
        stats,
        np.full(4, PAGE, np.int64),
        np.full(4, 2, np.int64),
        np.tile(np.array([5, 100], np.int64), 4),
        np.tile(np.array([2, 1], np.int64), 4),
        np.tile(np.array([0, 2], np.int64), 4),
        np.zeros((4, 32), np.uint8),
        extras or {},
    )


def _refused(folder: Folder) -> None:
    for record in manifest.folder_records(folder, bytes(32), [], {}):
        with pytest.raises(Tampered):
            opening.read_record(memoryview(record))


def test_the_honest_one_is_read() -> None:
    for record in manifest.folder_records(_folder(), bytes(32), [], {}):
        opening.read_record(memoryview(record))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("run_counts", [HUGE, HUGE, 10, 0]),  # the sum wraps to 8, which is right
        ("run_counts", [-2, 10, 0, 0]),
        ("run_lens", [1 << 62] * 4 + [1] * 4),  # the sum wraps to 4
        ("run_lens", [HUGE, HUGE, 3, 1, 1, 1, 1, 1]),
        ("run_refs", [HUGE] + [5] * 7),
        ("run_ats", [HUGE] + [0] * 7),
        ("page_bytes", [2 << 20, PAGE, PAGE, PAGE]),
    ],
)
def test_numbers_whose_sums_wrap_are_refused(column: str, values: list[int]) -> None:
    folder = _folder()
    setattr(folder, column, np.array(values, np.int64))
    _refused(folder)


def test_a_negative_size_is_refused() -> None:
    folder = _folder()
    folder.stats[0, SIZE] = -1
    _refused(folder)


def test_objects_larger_than_any_are_refused_before_they_are_fetched() -> None:
    size = container.MAX_OBJECT_BYTES + 1
    part, pack = Part(ObjectId("a" * 64), size), Pack(ObjectId("a" * 64), 1, size)
    for record in manifest.packs_records([pack]):
        with pytest.raises(Tampered):
            opening.read_record(memoryview(record))
    head = Head(
        "land", "files", 1, 2, Instant(0), "", (part,), 1, bytes(32), bytes(32), {}, (), (), {}, bytes(32)
    )
    with pytest.raises(Tampered):
        opening.read_record(memoryview(manifest.head_record(head)))
    signer = Signer("writer", bytes(64))
    for manifests, packs in (((part,), ()), ((), (pack,))):
        commit = Commit(
            realm=FIRST, register=RegisterId("b" * 32), epoch=EpochId("c" * 16), term=1, sequence=1,
            previous=FIRST, at=Instant(0), manifest=manifests, index=(), packs=packs, full=True, gaps=0,
            charter=FIRST,
        )  # fmt: skip
        with pytest.raises(Tampered):
            commits.decode(commits.encode(commit, signer), signer.verifier)


def test_a_part_whose_folder_or_first_name_is_missing_is_refused() -> None:
    with pytest.raises(Tampered):
        selecting.select({b"q/r": _folder(b"q/r")}, b"q/r/a")
    top = _folder(extras={1: Extra(twin=b"nowhere")})
    with pytest.raises(Tampered):
        selecting.select({b"": top}, b"b")
