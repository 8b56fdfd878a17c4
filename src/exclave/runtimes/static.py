"""Serving a restored tree of documents on loopback, as a process of its own."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import exclave
from exclave.errors import Misconfigured
from exclave.registers.base import Finding
from exclave.runtimes import base, process
from exclave.runtimes.base import Service

_STOPPING = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))


@dataclass(frozen=True, slots=True)
class StaticRuntime:
    """`folder` keeps notes and logs; `port` 0 takes any free one."""

    folder: Path
    port: int = 0
    start_seconds: float = 20.0

    def start(self, name: str, place: Path) -> Service:
        """Answering when this returns. Raises Misconfigured, Busy."""
        log = base.log_of(self.folder, name)
        process.refuse_twice(self.folder, name)
        if not place.is_dir():
            raise Misconfigured(
                "place-missing",
                f"{place} cannot be served",
                why="it is not a folder",
                hint="restore the register first",
            )
        port = self.port or _free_port()
        command = [sys.executable, "-P", "-m", "exclave.runtimes.static_server"]
        pid = process.spawn(
            [*command, "--root", place.absolute(), "--port", str(port)], log=log, environment=_environment()
        )
        address = f"http://127.0.0.1:{port}/"
        service = Service(name, "static", address, pid, process.birth(pid), place.absolute(), log)
        try:
            process.wait_until(lambda: _answers(address), service, seconds=self.start_seconds)
        except BaseException:
            process.end(service, *_STOPPING)
            raise
        base.remember(self.folder, service)
        return service

    def stop(self, service: Service) -> None:
        """Gone when this returns; may be repeated."""
        process.end(service, *_STOPPING)
        base.forget(self.folder, service.name)

    def healthy(self, service: Service) -> bool:
        """Whether its first page answers."""
        return process.alive(service) and _answers(service.address)

    def check(self, service: Service, environment: dict[str, Any]) -> list[Finding]:
        """Whether it answers; its content was compared with the snapshot's digests while it was restored."""
        del environment
        if self.healthy(service):
            return [Finding("documents-answer", "ok", f"documents are served at {service.address}")]
        return [
            Finding("documents-silent", "fail", f"nothing answers at {service.address}", f"see {service.log}")
        ]


def _environment() -> dict[str, str]:
    """Enough to find this very package; nothing else of ours."""
    return {"PATH": os.defpath, "PYTHONPATH": str(Path(exclave.__file__).parent.parent), "LC_ALL": "C.UTF-8"}


def _answers(address: str) -> bool:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("HEAD", "/")
        return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
