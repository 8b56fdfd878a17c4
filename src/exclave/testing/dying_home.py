"""A home that is killed: `protect` in a process of its own, ended by SIGKILL at a chosen boundary or from outside.

`python -m exclave.testing.dying_home FOLDER [BOUNDARY]` protects once the register that `FOLDER/home.json` and its
keys describe; with BOUNDARY (a number from 1) it kills itself right before that call that makes something durable
or visible (fsync, fdatasync, rename, replace, link, unlink), or, given as `B+`, right after it. Without, it prints the
number of such calls it made.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave.crypto import sign
from exclave.embassies.embassy import Embassy
from exclave.registers.base import Register
from exclave.registers.files.register import FilesRegister
from exclave.registers.postgres.register import PostgresRegister
from exclave.registers.sqlite.register import SqliteRegister
from exclave.stores.base import Store
from exclave.stores.directory import DirectoryStore
from exclave.stores.object_store import ObjectStore
from exclave.testing.world import World

BOUNDARIES = ("fsync", "fdatasync", "rename", "replace", "link", "unlink")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: killed, or with so many boundaries passed."""

    killed: bool
    boundaries: int


def prepare(folder: Path, *, kind: str, source: str, sites: list[dict[str, str]], copies: int = 2) -> World:
    """Describe a home in `folder` and make its keys. `sites` are `{"directory": path}` or S3 as `_store` wants."""
    folder.mkdir(parents=True, exist_ok=True)
    for site in sites:
        if "directory" in site:
            Path(site["directory"]).mkdir(parents=True, exist_ok=True)
    home = {"kind": kind, "source": source, "sites": sites, "copies": copies}
    (folder / "home.json").write_text(json.dumps(home))
    seed = sign.generate_seed()
    world = World(folder, _register(home))
    (folder / "keys").write_bytes(pickle.dumps((world.keys, world.seed, seed)))
    return world_of(folder)


def world_of(folder: Path) -> World:
    """The world that `prepare` described."""
    home = json.loads((folder / "home.json").read_text())
    embassies = [Embassy(f"site{number}", _store(site)) for number, site in enumerate(home["sites"])]
    world = World(folder, _register(home), copies=home["copies"], embassies=embassies)
    world.keys, world.seed, seed = pickle.loads((folder / "keys").read_bytes())  # noqa: S301 - this test wrote it
    world.signer = sign.Signer("writer", seed)
    return world


def start(folder: Path, boundary: str = "") -> subprocess.Popen[bytes]:
    """Begin a run in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "exclave.testing.dying_home",
        str(folder),
        *([boundary] if boundary else []),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[bytes], timeout_seconds: float = 120) -> Ended:
    """Wait for a run. Raises AssertionError with its errors when it failed other than by being killed."""
    out, errors = process.communicate(timeout=timeout_seconds)
    if process.returncode == -signal.SIGKILL:
        return Ended(killed=True, boundaries=0)
    if process.returncode != 0:
        raise AssertionError(errors.decode())
    return Ended(killed=False, boundaries=int(out))


def _register(home: dict[str, Any]) -> Register:
    source = home["source"]
    match home["kind"]:
        case "files":
            return FilesRegister(Path(source))
        case "sqlite":
            return SqliteRegister(Path(source))
        case _:
            return PostgresRegister(source)


def _store(site: dict[str, str]) -> Store:
    if "directory" in site:
        return DirectoryStore(Path(site["directory"]))
    return ObjectStore(
        site["url"], endpoint=site["endpoint"], credentials_file=Path(site["credentials_file"])
    )


def _count_boundaries(die_at: int, *, after: bool) -> Callable[[], int]:
    """Kill this process at its `die_at`-th boundary (0: never). Gives how many there were."""
    passed = 0
    counting = threading.Lock()

    def watched(name: str) -> Callable[..., Any]:
        original: Callable[..., Any] = getattr(os, name)

        def call(*args: Any, **options: Any) -> Any:
            nonlocal passed
            with counting:
                passed += 1
                mine = passed
            if mine == die_at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return original(*args, **options)
            finally:  # also after a call that failed, as unlinking what is not there does
                if mine == die_at and after:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    for name in BOUNDARIES:
        setattr(os, name, watched(name))
    return lambda: passed


def main() -> None:
    """See the module."""
    folder, boundary = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0"
    boundaries = _count_boundaries(int(boundary.rstrip("+")), after=boundary.endswith("+"))
    world_of(folder).protect()
    sys.stdout.write(str(boundaries()))


if __name__ == "__main__":
    main()
