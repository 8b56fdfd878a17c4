"""The deduplication index at a size nobody waits for in a test: rates, memory, disk.

    python bench/index.py [--chunks 1e8] [--folder DIR] [--json FILE]

Synthetic ids (uniform, as keyed hashes are) are added in batches of 512, as the pipeline does; then looked up, known
and unknown ones, in the pipeline's batches and one by one. The folder takes up to twice 25 bytes a chunk while runs
are merged; it is removed at the end. Memory is the peak of the process, Python and numpy included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from exclave.index_files import ChunkIndex

BATCH = 512
STRETCH = 1 << 19  # ids are made by the stretch from a seed, so that none need be kept


def _stretch(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 1 << 64, (STRETCH, 2), dtype=np.uint64)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _build(index: ChunkIndex, stretches: int) -> dict[str, float]:
    spent, worst = 0.0, 0.0
    for number in range(stretches):
        ids = _stretch(number).tobytes()
        for at in range(0, STRETCH, BATCH):
            begun = time.perf_counter()
            index.add(ids[at * 16 : (at + BATCH) * 16], np.arange(at, at + BATCH) + number * STRETCH)
            took = time.perf_counter() - begun
            spent += took
            worst = max(worst, took)
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{stretches}", end="", file=sys.stderr)
    begun = time.perf_counter()
    index.commit()
    return {
        "insert_per_second": stretches * STRETCH / spent,
        "insert_seconds": spent,
        "longest_add_seconds": worst,
        "commit_seconds": time.perf_counter() - begun,
    }


def _look_up(index: ChunkIndex, stretches: int, *, known: bool, batch: int, count: int) -> float:
    """Look-ups per second; ids of a batch come from one stretch, in random places."""
    random = np.random.default_rng(11)
    spent, done = 0.0, 0
    while done < count:
        number = int(random.integers(0, stretches)) + (0 if known else 1_000_000)
        pool = _stretch(number)
        for _ in range(max(1, min(count // 20, STRETCH) // batch)):
            rows = random.integers(0, STRETCH, batch)
            ids = pool[rows].tobytes()
            begun = time.perf_counter()
            found = index.find(ids)
            spent += time.perf_counter() - begun
            done += batch
            right = rows + number * STRETCH if known else np.full(batch, -1)
            if not np.array_equal(found, right):
                raise SystemExit("the index gave a wrong answer")
    return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chunks", type=float, default=1e8)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="exclave-index-", dir=options.folder))
    stretches = max(1, round(options.chunks / STRETCH))
    try:
        results: dict[str, float] = {"chunks": stretches * STRETCH}
        with ChunkIndex(folder) as index:
            results |= _build(index, stretches)
            results["peak_rss_mb_after_build"] = _peak_mb()
        results["disk_bytes"] = sum(path.stat().st_size for path in folder.iterdir())
        results["runs"] = len(list(folder.iterdir()))
        begun = time.perf_counter()
        index = ChunkIndex(folder)
        results["open_seconds"] = time.perf_counter() - begun
        for name, known in (("hit", True), ("miss", False)):
            _look_up(index, stretches, known=known, batch=BATCH, count=BATCH)  # loads the filters
            results[f"{name}_per_second_by_512"] = _look_up(
                index, stretches, known=known, batch=BATCH, count=1_000_000
            )
            results[f"{name}_per_second_one_by_one"] = _look_up(
                index, stretches, known=known, batch=1, count=100_000
            )
        index.close()
        results["peak_rss_mb"] = _peak_mb()
    finally:
        shutil.rmtree(folder)
    width = max(map(len, results))
    for name, value in results.items():
        print(f"{name:<{width}}  {value:>16,.0f}" if value >= 100 else f"{name:<{width}}  {value:>16,.3f}")
    if options.json is not None:
        options.json.write_text(json.dumps(results | {"cpus": os.cpu_count()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
