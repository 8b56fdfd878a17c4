"""The data that is backed up: made once in the work folder, the same for every tool; and its change, there and back.

A set is `before/` (pristine), `after/` (only what differs, whole files) and a list of what went; `live/` is what the
tools read. Going from one state to the other rewrites the files that differ and leaves all others alone.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peers_server
from peers_measure import MIB

LINUX = Path("/usr/src/linux-source-6.1.tar.xz")


@dataclass(frozen=True, slots=True)
class DataSet:
    """One kind of data below `root`. `changed` and `removed` are paths relative to it."""

    name: str
    title: str
    root: Path

    @property
    def live(self) -> Path:
        """What the tools back up."""
        return self.root / "live"

    @property
    def before(self) -> Path:
        """As it was first; never read by a tool."""
        return self.root / "before"

    def lists(self) -> tuple[list[str], list[str], list[str]]:
        """Changed, added and removed paths."""
        read: dict[str, list[str]] = json.loads((self.root / "change.json").read_text())
        return read["changed"], read["added"], read["removed"]

    def reset(self) -> None:
        """Make `live` the first state. Quick when it is."""
        if not self.live.exists():
            subprocess.run(["cp", "-a", "--reflink=auto", self.before, self.live], check=True)
        elif self._state() == "first":
            return
        changed, added, removed = self.lists()
        self._say("between")
        for path in added:
            (self.live / path).unlink(missing_ok=True)
        for path in changed + removed:
            _rewrite(self.before / path, self.live / path)
        self._say("first")

    def change(self) -> None:
        """Make `live` the second state."""
        changed, added, removed = self.lists()
        self._say("between")
        for path in changed + added:
            _rewrite(self.root / "after" / path, self.live / path)
        for path in removed:
            (self.live / path).unlink()
        self._say("second")

    def _state(self) -> str:
        noted = self.root / "state"
        return noted.read_text() if noted.exists() else ""

    def _say(self, state: str) -> None:
        (self.root / "state").write_text(state)


def _rewrite(source: Path, target: Path) -> None:
    """In place, so that the file keeps its inode; with the times it had, so that every round sees the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    owner = source.lstat()
    if os.geteuid() == 0:
        os.chown(target, owner.st_uid, owner.st_gid)
    shutil.copystat(source, target)


def prepare(name: str, work: Path, scale: float) -> DataSet:
    """The set, built if it is not in `work` already, by a process of its own. Raises SystemExit when that fails."""
    data = _data(name, work, scale)
    if not (data.root / "change.json").exists():
        print(f"building data set {name} at scale {scale:g} in {data.root}", flush=True)
        if subprocess.run([sys.executable, __file__, name, work, str(scale)], check=False).returncode != 0:
            raise SystemExit(f"data set {name} could not be built")
    data.reset()
    return data


def _data(name: str, work: Path, scale: float) -> DataSet:
    return DataSet(name, SETS[name][0], work / f"{name}-{scale:g}")


def _build(data: DataSet, scale: float) -> None:
    shutil.rmtree(data.root, ignore_errors=True)
    data.before.mkdir(parents=True)
    (data.root / "after").mkdir()
    lists = SETS[data.name][1](data, scale)
    change = dict(zip(("changed", "added", "removed"), lists, strict=True))
    (data.root / "change.json").write_text(json.dumps(change))


Lists = tuple[list[str], list[str], list[str]]


def _files(root: Path) -> list[str]:
    found = (os.path.join(top, name) for top, _, names in os.walk(root) for name in names)
    return sorted(os.path.relpath(path, root) for path in found if not os.path.islink(path))


def _edit_one_percent(data: DataSet) -> Lists:
    """Every hundredth file is edited: a line in its middle becomes another."""
    chosen = _files(data.before)[::100]
    for number, path in enumerate(chosen):
        raw = (data.before / path).read_bytes()
        at = len(raw) // 2
        (data.root / "after" / path).parent.mkdir(parents=True, exist_ok=True)
        (data.root / "after" / path).write_bytes(
            raw[:at] + f"/* edited {number} */\n".encode() + raw[at + 20 :]
        )
    return chosen, [], []


def _linux(data: DataSet, scale: float) -> Lists:
    if not LINUX.exists():
        raise SystemExit(f"{LINUX} is missing.\n  apt-get install linux-source-6.1")
    if scale >= 1:
        subprocess.run(["tar", "-xJf", LINUX, "-C", data.before, "--strip-components=1"], check=True)
    else:
        wanted = max(50, int(80_000 * scale))
        with tarfile.open(LINUX) as archive:
            for number, member in enumerate(archive):
                if number >= wanted:
                    break
                archive.extract(member, data.before, filter="tar")
    return _edit_one_percent(data)


def _random(data: DataSet, scale: float) -> Lists:
    """Four files; then one per cent of their bytes anew, in pieces of 1 MiB (or less in small sets) here and there."""
    chance = random.Random(20260301)
    each = max(1, int(500 * scale))
    names = [f"volume-{number}.bin" for number in range(4)]
    for name in names:
        with (data.before / name).open("wb") as file:
            for _ in range(each):
                file.write(chance.randbytes(MIB))
        shutil.copyfile(data.before / name, data.root / "after" / name)
        with (data.root / "after" / name).open("r+b") as file:
            for at in sorted(chance.sample(range(each), max(1, each // 100))):
                file.seek(at * MIB)
                file.write(chance.randbytes(min(MIB, each * MIB // 100)))
    return names, [], []


def _small(data: DataSet, scale: float) -> Lists:
    """Records like a population register's: JSON of 1 to 4 KB, a thousand in a folder."""
    chance = random.Random(4)
    words = [
        f"{chance.choice('bcdfghklmnprstvz')}{chance.choice('aeiou')}{chance.randrange(900)}"
        for _ in range(4000)
    ]
    for number in range(max(100, int(200_000 * scale))):
        folder = data.before / f"{number // 1000:04d}"
        folder.mkdir(exist_ok=True)
        fields = {f"field_{n}": " ".join(chance.choices(words, k=6)) for n in range(chance.randint(20, 85))}
        record = {"id": f"{chance.getrandbits(64):016x}", "number": number, **fields}
        (folder / f"{number:07d}.json").write_text(json.dumps(record, indent=0))
    return _edit_one_percent(data)


def _pgbench(data: DataSet, scale: float) -> Lists:
    """A cluster filled by pgbench and stopped; then the same one after some thousand transactions."""
    programs = peers_server.programs()
    data.before.rmdir()
    peers_server.initialise(programs, data.before, pgbench_scale=max(1, round(110 * scale)))
    later = data.root / "later"
    subprocess.run(["cp", "-a", "--reflink=auto", data.before, later], check=True)
    with peers_server.Server(programs, later) as server:
        server.work(transactions(scale))
    old, new = set(_files(data.before)), set(_files(later))
    changed = sorted(path for path in old & new if not _same(data.before / path, later / path))
    added, removed = sorted(new - old), sorted(old - new)
    for path in changed + added:
        target = data.root / "after" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(later / path, target)
        if os.geteuid() == 0:
            owner = (later / path).stat()
            os.chown(target, owner.st_uid, owner.st_gid)
    shutil.rmtree(later)
    return changed, added, removed


def transactions(scale: float) -> int:
    """Of the pgbench run that makes the change."""
    return max(200, int(4000 * scale))


def _same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(4 * MIB):
            if piece != right.read(4 * MIB):
                return False
    return True


SETS: dict[str, tuple[str, Callable[[DataSet, float], Lists]]] = {
    "linux": ("Linux source tree", _linux),
    "pgbench": ("PostgreSQL 15, pgbench", _pgbench),
    "random": ("2 GB incompressible", _random),
    "small": ("200,000 small files", _small),
}


if __name__ == "__main__":
    _build(_data(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])), float(sys.argv[3]))
