"""The port of a runtime: start, watch and stop what serves a rebuilt register; and what is remembered of it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from exclave.errors import Misconfigured, NotThere
from exclave.registers.base import Finding

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Service:
    """Something that was started. `began` tells the process apart from a later one with the same `pid`."""

    name: str
    kind: str  # `postgres` or `static`
    address: str  # a libpq connection string or a URL; never holds a secret
    pid: int
    began: str
    place: Path  # the restored register that it serves
    log: Path
    private: Path | None = None  # folder made for this run (socket, access rules); removed when stopped


class Runtime(Protocol):
    """Starts services of one kind. They outlive this process; `stop` works from another one."""

    def start(self, name: str, place: Path) -> Service:
        """Serving when this returns. Raises Misconfigured (with the end of its log), Busy if `name` runs."""
        ...

    def stop(self, service: Service) -> None:
        """Gone when this returns; stopping what is not running is fine."""
        ...

    def healthy(self, service: Service) -> bool:
        """Whether it answers now."""
        ...

    def check(self, service: Service, environment: dict[str, Any]) -> list[Finding]:
        """Look through what is served whether it is sound, as captured in `environment`; changes nothing."""
        ...


def log_of(folder: Path, name: str) -> Path:
    """Where the service called `name` writes its log. Raises Misconfigured for a name that is no file name."""
    if not _NAME.fullmatch(name):
        raise Misconfigured(
            "service-name-unfit",
            f"A service cannot be called {name!r}",
            why="lower-case letters, digits, dot, dash and underscore only, at most 64",
            hint="choose another name",
        )
    return folder / f"{name}.log"


def remember(folder: Path, service: Service) -> None:
    """Write down what runs, so that any later process can stop it. Replaces an earlier note of that name."""
    log_of(folder, service.name)
    note = {
        "name": service.name,
        "kind": service.kind,
        "address": service.address,
        "pid": service.pid,
        "began": service.began,
        "place": str(service.place),
        "log": str(service.log),
        "private": str(service.private) if service.private else "",
    }
    part = folder / f"{service.name}.json.part"
    part.write_text(json.dumps(note, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(part, folder / f"{service.name}.json")


def forget(folder: Path, name: str) -> None:
    """Drop the note of `name`, if there is one; its log stays."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def recall(folder: Path, name: str) -> Service:
    """What was noted of `name`. Raises NotThere."""
    try:
        note: dict[str, str | int] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotThere("service-unknown", f"No service called {name} was started from here") from error
    private = str(note["private"])
    return Service(
        name=str(note["name"]),
        kind=str(note["kind"]),
        address=str(note["address"]),
        pid=int(note["pid"]),
        began=str(note["began"]),
        place=Path(str(note["place"])),
        log=Path(str(note["log"])),
        private=Path(private) if private else None,
    )


def services(folder: Path) -> list[Service]:
    """All services noted in `folder`, by name."""
    return [recall(folder, note.stem) for note in sorted(folder.glob("*.json"))]
