"""Stores that were written once: the product and the stand-alone reader restore them for ever. Never make them anew."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exclave.crypto.sign import Verifier
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.fetch import Fetcher
from exclave.flows.restore import restore
from exclave.stores.directory import DirectoryStore
from exclave.testing.world import SeedOpener, Silent

STORES = Path(__file__).parent / "store"
READER = Path(__file__).parents[2] / "tools" / "exclave_reader.py"
NAMES = sorted(path.name for path in STORES.iterdir())


def _expected(name: str) -> dict[str, Any]:
    return json.loads((STORES / name / "expected.json").read_text())


def _by_product(name: str, sequence: int, place: Path) -> None:
    folder = STORES / name
    site = [Embassy("site", DirectoryStore(folder / "site"))]
    writer = Verifier("writer", bytes.fromhex((folder / "writer.hex").read_text()))
    history = inspect.history(site, _expected(name)["register"], writer)
    restore(
        history.commits[sequence - 1],
        fetcher=Fetcher(site),
        opener=SeedOpener(bytes.fromhex((folder / "seed.hex").read_text())),
        place=place,
        keep_owners=False,
        rebuilder=None,
        told=Silent(),
    )


def _by_reader(name: str, sequence: int, place: Path) -> None:
    folder = STORES / name
    seed = place.with_suffix(".seed")
    seed.touch(0o600)
    seed.write_text((folder / "seed.hex").read_text())
    command = [sys.executable, "-I", str(READER), str(folder / "site"), str(seed), "restore"]
    command += ["--register", _expected(name)["register"], "--sequence", str(sequence), "--to", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _tree(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        entry: dict[str, Any] = {"mode": oct(status.st_mode), "mtime_ns": status.st_mtime_ns, "links": 1}
        if stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            entry["links"] = status.st_nlink
            entry["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        found[os.fsencode(path.relative_to(place)).decode("latin-1")] = entry
    return found


def _contents(place: Path) -> dict[str, str]:
    return {
        str(path.relative_to(place)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in place.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("read", [_by_product, _by_reader], ids=["product", "reader"])
@pytest.mark.parametrize("name", NAMES)
def test_every_snapshot_of_a_store_written_once(
    name: str, read: Callable[[str, int, Path], None], tmp_path: Path
) -> None:
    look: Callable[[Path], dict[str, Any]] = _tree if name == "tree" else _contents
    snapshots = _expected(name)["snapshots"]
    assert snapshots
    for sequence, expected in enumerate(snapshots, 1):
        place = tmp_path / str(sequence)
        read(name, sequence, place)
        assert look(place) == expected, f"snapshot {sequence}"
