"""The index is killed while it spills, commits and merges: what was committed is there, what was not is gone."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exclave import index_files
from exclave.index_files import ChunkIndex

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from exclave import index_files
index_files.MEMORY_RECORDS = 300
index = index_files.ChunkIndex(Path(sys.argv[1]))
turn = int(sys.argv[2])
while True:
    turn += 1
    ids = np.random.default_rng(turn).integers(0, 1 << 64, (1000, 2), dtype=np.uint64)
    for part in range(0, 1000, 100):
        index.add(ids[part : part + 100].tobytes(), np.arange(part, part + 100) + turn * 1000)
    print("adding", turn, flush=True)
    index.commit()
    print("done", turn, flush=True)
"""


def _kill_once(folder: Path, turn: int, after: float) -> tuple[int, int]:
    """Turns that were certainly committed, and that had begun to be, when the writer was killed."""
    command = [sys.executable, "-c", _WRITER, str(folder), str(turn)]
    environment = os.environ | {"PYTHONPATH": str(Path(index_files.__file__).parents[1])}
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert writer.stdout is not None
    writer.stdout.readline()  # it runs
    try:
        writer.wait(after)
    except subprocess.TimeoutExpired:
        writer.kill()
    lines = [f"adding {turn + 1}", *writer.stdout.read().splitlines()]
    writer.stdout.close()
    writer.wait()
    whole = [line.split() for line in lines if len(line.split()) == 2]
    done = max((int(number) for word, number in whole if word == "done"), default=turn)
    begun = max(int(number) for word, number in whole if word == "adding")
    return done, begun


def _check(folder: Path, done: set[int], begun: int) -> None:
    with ChunkIndex(folder) as index:
        assert index.dropped == 0
        for turn in range(1, begun + 2):
            ids = np.random.default_rng(turn).integers(0, 1 << 64, (1000, 2), dtype=np.uint64)
            found = index.find(ids.tobytes())
            right = np.arange(1000) + turn * 1000
            if turn in done:
                assert np.array_equal(found, right)
            elif turn <= begun:
                assert ((found == right) | (found == -1)).all()
            else:
                assert (found == -1).all()
        assert not [path for path in folder.iterdir() if path.suffix != ".run"]


def _campaign(folder: Path, kills: int) -> None:
    chance = random.Random(7)
    committed: set[int] = set()
    begun = 0
    for _ in range(kills):
        before = begun
        done, begun = _kill_once(folder, before, chance.uniform(0.0, 0.15))
        committed |= set(range(before + 1, done + 1))
        _check(folder, committed, begun)
    assert committed


def test_killed_a_few_times(tmp_path: Path) -> None:
    _campaign(tmp_path, 5)


@pytest.mark.long
def test_killed_often(tmp_path: Path) -> None:
    _campaign(tmp_path, 40)
