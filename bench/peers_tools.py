"""The tools side by side: each makes a repository, backs up, restores and verifies, and says what that cost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import peers_server
from peers_data import DataSet, transactions
from peers_measure import Cost, run, stored_bytes


class Subject(Protocol):
    """What is backed up, in its first state until `change`."""

    @property
    def source(self) -> Path:
        """The folder that tools for files read."""
        ...

    @property
    def server(self) -> peers_server.Server | None:
        """The server that works for the tool, if it reads through one."""
        ...

    def begin(self) -> None:
        """Set the first state up."""

    def change(self) -> None:
        """Go on to the second state."""

    def end(self) -> None:
        """Leave nothing running."""


@dataclass
class Files:
    """A folder, read as it lies there."""

    data: DataSet

    @property
    def source(self) -> Path:
        return self.data.live

    @property
    def server(self) -> peers_server.Server | None:
        return None

    def begin(self) -> None:
        self.data.reset()

    def change(self) -> None:
        self.data.change()

    def end(self) -> None:
        self.data.reset()


@dataclass
class Cluster:
    """The same cluster, running; its change is the same run of pgbench."""

    data: DataSet
    scale: float
    server: peers_server.Server | None = None

    @property
    def source(self) -> Path:
        return self.data.root / "running"

    def begin(self) -> None:
        self.end()
        subprocess.run(["cp", "-a", "--reflink=auto", self.data.before, self.source], check=True)
        self.server = peers_server.Server(peers_server.programs(), self.source)
        self.server.__enter__()

    def change(self) -> None:
        assert self.server is not None
        self.server.work(transactions(self.scale))

    def end(self) -> None:
        if self.server is not None:
            self.server.__exit__(None, None, None)
            self.server = None
        shutil.rmtree(self.source, ignore_errors=True)


class Tool(Protocol):
    """One tool with one repository below `place`. The methods are called in this order, `backup` three times."""

    name: str

    def version(self) -> str:
        """As the tool says it. Raises SystemExit with what to install when the tool is missing."""
        ...

    def fresh(self, place: Path, subject: Subject) -> None:
        """Make keys and an empty repository. Not measured."""

    def backup(self) -> Cost:
        """Bring the repository up to date."""
        ...

    def restore(self, target: Path) -> Cost:
        """Rebuild the newest snapshot in `target`, which does not exist."""
        ...

    def restored(self, target: Path) -> Path:
        """Where in `target` the source's folder is."""
        ...

    def verify(self) -> Cost:
        """Read and check every stored byte."""
        ...

    def stored(self) -> int:
        """Bytes in the repository."""
        ...


def said(command: list[str], hint: str, env: dict[str, str] | None = None) -> str:
    """First line of what a program says. Raises SystemExit with `hint` when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{command[0]} cannot be run: {error}\n  {hint}") from error
    return (done.stdout or done.stderr).splitlines()[0].strip()


def environment(place: Path, **more: str) -> dict[str, str]:
    """Nothing of the user's: no cache, no configuration, one locale."""
    kept = {
        "PATH": os.environ["PATH"],
        "HOME": str(place / "home"),
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(place),
    }
    return kept | more


@dataclass
class Peer:
    """What the foreign tools share."""

    place: Path = field(default_factory=Path)
    source: Path = field(default_factory=Path)
    env: dict[str, str] = field(default_factory=dict)

    def _settle(self, place: Path, subject: Subject, **more: str) -> None:
        shutil.rmtree(place, ignore_errors=True)
        (place / "home").mkdir(parents=True)
        self.place, self.source = place, subject.source
        self.env = environment(place, **more)
        (place / "password").write_text("measured, not secret\n")

    def _run(self, *command: str | Path, cwd: Path | None = None) -> Cost:
        return run(command, env=self.env, cwd=cwd or self.source, log=self.place / "log")

    def stored(self) -> int:
        return stored_bytes(self.place / "repository")


class Restic(Peer):
    """restic with its own defaults: compression `auto`, packs of 16 MiB."""

    name = "restic"

    def version(self) -> str:
        return said(["restic", "version"], "apt-get install restic")

    def fresh(self, place: Path, subject: Subject) -> None:
        self._settle(
            place,
            subject,
            RESTIC_REPOSITORY=str(place / "repository"),
            RESTIC_PASSWORD_FILE=str(place / "password"),
            RESTIC_CACHE_DIR=str(place / "cache"),
        )
        self._run("restic", "init", "--quiet")

    def backup(self) -> Cost:
        return self._run("restic", "backup", "--quiet", ".")

    def restore(self, target: Path) -> Cost:
        return self._run("restic", "restore", "latest", "--quiet", "--target", target)

    def restored(self, target: Path) -> Path:
        nested = target / self.source.relative_to("/")
        return nested if nested.exists() else target

    def verify(self) -> Cost:
        return self._run("restic", "check", "--quiet", "--read-data")


class Borg(Peer):
    """BorgBackup with zstd level 1 and the key beside the repository's user, as its authors advise for new ones."""

    name = "borg"

    def __init__(self) -> None:
        super().__init__()
        beside = Path(sys.executable).with_name("borg")
        self.program = str(beside if beside.exists() else shutil.which("borg") or "borg")

    def version(self) -> str:
        hint = (
            "apt-get install libacl1-dev libssl-dev liblz4-dev libxxhash-dev libzstd-dev pkg-config gcc"
            f" && {sys.executable} -m pip install 'borgbackup==1.4.*'"
        )
        return said([self.program, "--version"], hint)

    def fresh(self, place: Path, subject: Subject) -> None:
        self._settle(
            place,
            subject,
            BORG_REPO=str(place / "repository"),
            BORG_PASSCOMMAND=f"cat {place / 'password'}",
            BORG_BASE_DIR=str(place / "home"),
        )
        self._run(self.program, "init", "--encryption=keyfile-blake2")
        self.count = 0

    def backup(self) -> Cost:
        self.count += 1
        return self._run(self.program, "create", "--compression=zstd,1", f"::s{self.count}", ".")

    def restore(self, target: Path) -> Cost:
        target.mkdir()
        return self._run(self.program, "extract", f"::s{self.count}", cwd=target)

    def restored(self, target: Path) -> Path:
        return target

    def verify(self) -> Cost:
        return self._run(self.program, "check", "--verify-data")


class Pipe(Peer):
    """`tar | zstd -1 | age`: no deduplication, no increments, no fsync; what the machine can do at all."""

    name = "pipe"

    def version(self) -> str:
        said(["zstd", "--version"], "apt-get install zstd")
        return "tar | zstd -1 | age " + said(["age", "--version"], "apt-get install age")

    def fresh(self, place: Path, subject: Subject) -> None:
        self._settle(place, subject)
        (place / "repository").mkdir()
        key = place / "key"
        subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
        recipient = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True).stdout
        (place / "recipient").write_bytes(recipient)
        self.count = 0

    def _shell(self, line: str, cwd: Path) -> Cost:
        return self._run("bash", "-o", "pipefail", "-c", line, cwd=cwd)

    def _newest(self) -> Path:
        return self.place / "repository" / f"s{self.count}"

    def backup(self) -> Cost:
        self.count += 1
        line = f"tar -cf - . | zstd -q -1 -T1 | age -R {self.place}/recipient > {self._newest()}"
        return self._shell(line, self.source)

    def restore(self, target: Path) -> Cost:
        target.mkdir()
        return self._shell(f"age -d -i {self.place}/key {self._newest()} | zstd -q -d | tar -xpf -", target)

    def restored(self, target: Path) -> Path:
        return target

    def verify(self) -> Cost:
        line = f"age -d -i {self.place}/key {self._newest()} | zstd -q -d | tar -tf - > /dev/null"
        return self._shell(line, self.place)
