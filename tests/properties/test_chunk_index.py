"""The index answers like a dict, whatever is spilled, merged, committed, damaged or reopened in between."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exclave import index_files
from exclave.index_files import ChunkIndex
from exclave.sealed.index import merging

# Ids from a small space, so that they repeat, and with first halves that many share, so that they straddle blocks.
_BATCHES = st.tuples(
    st.sampled_from(["add", "add", "add", "find", "commit", "reopen", "discard"]),
    st.integers(0, 2**32),
    st.integers(0, 900),
    st.sampled_from([1, 3, 1 << 63]),
)


def _ids(seed: int, count: int, spread: int) -> bytes:
    random = np.random.default_rng(seed)
    pairs = np.empty((count, 2), dtype="<u8")
    pairs[:, 0] = random.integers(0, spread, count, dtype=np.uint64)
    pairs[:, 1] = random.integers(0, 3000, count, dtype=np.uint64)
    return pairs.tobytes()


def _split(ids: bytes) -> list[bytes]:
    return [ids[at : at + 16] for at in range(0, len(ids), 16)]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_files, "MEMORY_RECORDS", 700)
    monkeypatch.setattr(merging, "STEP_BLOCKS", 4)


@pytest.mark.usefixtures("small")
@settings(max_examples=60, deadline=None)
@given(st.lists(_BATCHES, min_size=1, max_size=40), st.booleans())
def test_it_answers_like_a_dict(batches: list[tuple[str, int, int, int]], filtered: bool) -> None:
    patch = pytest.MonkeyPatch()
    if not filtered:
        patch.setattr(index_files, "FILTER_BUDGET_BYTES", 0)
    with tempfile.TemporaryDirectory() as name, patch.context():
        index = ChunkIndex(Path(name))
        model: dict[bytes, int] = {}
        committed: dict[bytes, int] = {}
        for act, seed, count, spread in batches:
            ids = _ids(seed, count, spread)
            if act == "add":
                references = np.random.default_rng(seed + 1).integers(0, 1 << 50, count)
                index.add(ids, references)
                model.update(zip(_split(ids), references.tolist(), strict=True))
            elif act == "commit":
                index.commit()
                committed = dict(model)
            elif act == "reopen":
                index.close()
                index = ChunkIndex(Path(name))
                model = dict(committed)
            elif act == "discard":
                index.discard_uncommitted()
                model = dict(committed)
            few = ids[: 16 * 7]
            assert index.find(ids).tolist() == [model.get(one, -1) for one in _split(ids)]
            assert index.find(few).tolist() == [model.get(one, -1) for one in _split(few)]
        everything = b"".join(model)
        assert index.find(everything).tolist() == list(model.values())
        assert len(list(Path(name).iterdir())) <= 2 * merging.MAX_RUNS
        index.close()
    patch.undo()


@pytest.mark.usefixtures("small")
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["flip", "cut", "zero", "swap"]))
def test_damage_is_never_a_wrong_answer(seed: int, kind: str) -> None:
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model: dict[bytes, int] = {}
        with ChunkIndex(folder) as index:
            for turn in range(4):
                ids = _ids(seed + turn, 1500, 1 << 63)
                references = np.arange(turn << 20, (turn << 20) + 1500)
                index.add(ids, references)
                model.update(zip(_split(ids), references.tolist(), strict=True))
                index.commit()
            live = ChunkIndex(folder)  # has the files open while they are damaged
        files = sorted(folder.iterdir())
        victim = files[int(random.integers(0, len(files)))]
        data = bytearray(victim.read_bytes())
        at = int(random.integers(0, len(data)))
        if kind == "flip":
            data[at] ^= 1 << int(random.integers(0, 8))
        elif kind == "cut":
            del data[at:]
        elif kind == "zero":
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        else:
            data = bytearray(files[0 if victim != files[0] else -1].read_bytes())
        with victim.open("r+b") as file:
            file.truncate()
            file.write(data)
        ids = b"".join(model)
        for index in (live, ChunkIndex(folder)):
            index.add(_ids(seed + 9, 50, 1 << 63), np.arange(50))
            index.commit()
            answers = index.find(ids).tolist()
            expected = list(model.values())
            fresh = dict(zip(_split(_ids(seed + 9, 50, 1 << 63)), range(50), strict=True))
            assert all(
                answer in {-1, right, fresh.get(one)}
                for one, answer, right in zip(model, answers, expected, strict=True)
            )
            assert sum(answer >= 0 for answer in answers) >= len(ids) // 16 // 10
            index.close()


def test_spilled_but_uncommitted_runs_do_not_survive(tmp_path: Path) -> None:
    ids = _ids(1, 2000, 1 << 63)
    index = ChunkIndex(tmp_path)
    index.add(ids[:16], np.array([5]))
    index.commit()
    patch = pytest.MonkeyPatch()
    patch.setattr(index_files, "MEMORY_RECORDS", 100)
    for start in range(16, len(ids), 1600):
        part = ids[start : start + 1600]
        index.add(part, np.arange(len(part) // 16))
    patch.undo()
    assert any(path.suffix == ".pending" for path in tmp_path.iterdir())
    again = ChunkIndex(tmp_path)  # as after a crash: the first one was never closed
    assert [path.suffix for path in tmp_path.iterdir()] == [".run"]
    assert again.find(ids[:32]).tolist() == [5, -1]
    assert len(again) == 1


def test_load_replaces_everything_and_leaves_foreign_files_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not ours")
    (tmp_path / f"{'0' * 16}-{'f' * 16}.run").write_bytes(b"a file of ours, but garbage")
    with ChunkIndex(tmp_path) as index:
        assert index.dropped == 1
        index.add(b"a" * 16, np.array([1]))
        index.commit()
        index.load((bytes([letter]) * 16, np.array([letter])) for letter in b"bcb")
        assert index.dropped == 0
        assert index.find(b"a" * 16 + b"b" * 16 + b"c" * 16).tolist() == [-1, 98, 99]
    assert (tmp_path / "notes.txt").read_text() == "not ours"
    with ChunkIndex(tmp_path) as index:
        assert index.find(b"c" * 16).tolist() == [99]


def test_an_interrupted_merge_leaves_nothing_double(tmp_path: Path) -> None:
    with ChunkIndex(tmp_path) as index:
        for turn in range(merging.MAX_RUNS):
            index.add(_ids(turn, 10, 1 << 63), np.arange(10))
            index.commit()
        kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
        index.add(_ids(99, 10, 1 << 63), np.arange(10))
        index.commit()
        records = len(index)
    for path, data in kept.items():  # as if the machine had stopped before they were deleted
        path.write_bytes(data)
    (tmp_path / f"{7:016x}-{9:016x}.new").write_bytes(b"half a run")
    with ChunkIndex(tmp_path) as index:
        assert len(index) == records
        assert len(list(tmp_path.iterdir())) == 1
