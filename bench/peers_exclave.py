"""exclave as it is used: the real commands, in a realm of five custodians made for each round.

Making the realm, asking and approving are people's acts and are not measured; what is measured is `protect`,
`restore` (the keyholder's process included) and `verify`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from peers_measure import Cost, ProgramFailedError, run, stored_bytes
from peers_tools import Subject, environment, said

CUSTODIANS = ("ana", "bruno", "carla", "dario", "elsa")
THRESHOLD = 3
PROGRAM = (sys.executable, "-m", "exclave")
REGISTER = "data"


class Exclave:
    """One register, one embassy in a folder, three of five custodians."""

    name = "exclave"

    def __init__(self) -> None:
        self.place = Path()
        self.subject: Subject | None = None
        self.requests = 0

    def version(self) -> str:
        """As `exclave version` says it."""
        return said([*PROGRAM, "version"], "make bench, which installs the project", env=self._environment())

    def _environment(self) -> dict[str, str]:
        # from a checkout that is not installed, as the tests do it
        return environment(self.place) | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}

    def _do(self, *words: str | Path) -> None:
        """A command that is not measured."""
        command = [*PROGRAM, *map(str, words)]
        done = subprocess.run(
            command, cwd=self.place / "home", env=self._environment(), capture_output=True, check=False
        )
        if done.returncode != 0:
            raise ProgramFailedError(
                f"{' '.join(command)}\n{(done.stdout + done.stderr).decode(errors='replace')}"
            )

    def _measure(self, *words: str | Path, reading: bool = False) -> Cost:
        server = self.subject.server.pid if reading and self.subject and self.subject.server else None
        return run(
            [*PROGRAM, *words, "--progress", "none"],
            env=self._environment(),
            cwd=self.place / "home",
            log=self.place / "log",
            server=server,
        )

    def fresh(self, place: Path, subject: Subject) -> None:
        """A new realm with its keys, and an empty embassy."""
        shutil.rmtree(place, ignore_errors=True)
        (place / "home").mkdir(parents=True)
        self.place, self.subject, self.requests = place, subject, 0
        self._do("init", "--realm", "bench", "--copies", "1")
        if subject.server is not None:
            source = ["--kind", "postgres", "--conninfo", subject.server.conninfo]
        else:
            source = [str(subject.source), "--kind", "files"]
        self._do("register", "add", REGISTER, *source)
        self._do("embassy", "add", "vault", place / "repository")
        people = [word for name in CUSTODIANS for word in ("--custodian", name)]
        self._do("ceremony", *people, "--threshold", str(THRESHOLD), "--out", place / "custodians")

    def backup(self) -> Cost:
        """Also of what a database server did for it."""
        return self._measure("protect", REGISTER, reading=True)

    def restore(self, target: Path) -> Cost:
        """With a request and three approvals made beforehand."""
        self.requests += 1
        folder = self.place / f"request-{self.requests}"
        folder.mkdir()
        request = folder / "request.exclave"
        self._do("request", REGISTER, "--reason", "bench", "--embassy", "vault", "--out", request)
        for name in CUSTODIANS[:THRESHOLD]:
            answer = folder / f"{name}.approval"
            self._do("approve", request, "--as", self.place / "custodians" / name, "--out", answer, "--yes")
        answers = [
            word for name in CUSTODIANS[:THRESHOLD] for word in ("--approval", folder / f"{name}.approval")
        ]
        return self._measure("restore", REGISTER, "--to", target, "--request", request, *answers)

    def restored(self, target: Path) -> Path:
        """The folder's content lies directly in it."""
        return target

    def verify(self) -> Cost:
        """Keyless: every stored byte is read and hashed, every commit checked."""
        return self._measure("verify")

    def stored(self) -> int:
        """All that the embassy holds, charter and custody record too."""
        return stored_bytes(self.place / "repository")
