"""The other end of the keyholder's socket: an `Opener` for journeys, in a process that never sees a seed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import exclave
from exclave import codec, instants
from exclave.agents import channel
from exclave.custody import request as requests
from exclave.custody.request import Request
from exclave.errors import ExclaveError, Misconfigured, Refused, Unreachable
from exclave.flows.papers import Papers
from exclave.types import Instant, RegisterId

_PATIENCE_SECONDS = 60.0  # an answer takes milliseconds; this is for a machine that swaps
_STOP_SECONDS = 5.0


class KeyholderClient:
    """An open session. Use in `with`; safe from several threads. Made by `open`."""

    def __init__(self, process: subprocess.Popen[bytes], link: socket.socket, request: Request) -> None:
        self.request = request
        self.until = request.not_after
        self.hardening: dict[str, bool] = {}
        self._process = process
        self._link = link
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls,
        papers: Papers,
        request: bytes,
        approvals: Sequence[bytes],
        seed_file: Path,
        *,
        until: Instant | None = None,
    ) -> KeyholderClient:
        """Start a keyholder and let it judge. `request` and `approvals` are the bytes of those files.

        `until` ends the session before the request's own deadline. Raises QuorumMissing, Refused, Tampered,
        Misconfigured, NotThere, Unreachable; then no process is left.
        """
        asked = requests.parse(request)
        ours, theirs = socket.socketpair()
        ours.settimeout(_PATIENCE_SECONDS)
        with theirs:
            try:
                process = _start(theirs)
            except BaseException:
                ours.close()
                raise
        client = cls(process, ours, asked)
        try:
            end = asked.not_after if until is None else min(until, asked.not_after)
            client._open(_opening(papers, asked, request, approvals, seed_file, end))
        except BaseException:
            client.close()
            raise
        return client

    def content_key(self, header: bytes) -> bytes:
        """See `sealed.keys.Opener`. Also Unreachable("keyholder-gone")."""
        return self.content_keys([header])[0]

    def content_keys(self, headers: Iterable[bytes]) -> list[bytes]:
        """The content keys of many headers, in order. The first that is refused fails the whole call."""
        rows = list(headers)
        keys: list[bytes] = []
        for at in range(0, len(rows), channel.MAX_HEADERS):
            part = rows[at : at + channel.MAX_HEADERS]
            answer = self._ask(channel.KEYS + channel.join_headers(part))
            if len(answer) != 32 * len(part):
                raise self._gone("it gave an answer of another length")
            keys += [answer[start : start + 32] for start in range(0, len(answer), 32)]
        return keys

    def opened(self) -> dict[RegisterId, int]:
        """Containers opened so far, by register; empty when the session is over."""
        counts: dict[str, int] = codec.decode(self._ask(channel.STATE))["opened"]
        return {RegisterId(register): count for register, count in counts.items()}

    @property
    def process_id(self) -> int:
        """Of the keyholder."""
        return self._process.pid

    def close(self) -> None:
        """End the session: the keyholder forgets and stops. May be called twice."""
        self._link.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<keyholder session {self.request.fingerprint}, process {self._process.pid}>"

    def _open(self, papers: dict[str, Any]) -> None:
        message = codec.encode(papers)
        if len(message) >= channel.MAX_PAPERS_BYTES:
            raise Misconfigured(
                "papers-too-long",
                "The papers of this request are too long for the keyholder",
                why=f"{len(message)} bytes where {channel.MAX_PAPERS_BYTES} are allowed",
                hint="exclave request   # for fewer registers at once",
            )
        granted = codec.decode(self._ask(channel.OPEN + message))
        self.hardening = granted["hardening"]
        self.until = instants.from_text(granted["until"])

    def _ask(self, message: bytes) -> bytes:
        try:
            with self._lock:
                channel.send(self._link, message)
                answer = channel.receive(self._link, channel.MAX_ANSWER_BYTES)
        except OSError as error:
            self._link.close()  # half a message may be on its way: nothing that follows could be trusted
            raise self._gone(error.strerror or str(error)) from error
        if answer == channel.CLOSED:
            raise self._gone("its process has ended")
        if answer[:1] != b"+":
            raise channel.error_in(answer)
        return answer[1:]

    def _gone(self, why: str) -> ExclaveError:
        if time.time_ns() > self.until:
            return Refused(
                "session-over", "The session is over", why=why, hint="exclave request   # a new one"
            )
        return Unreachable(
            "keyholder-gone",
            "The keyholder does not answer any more",
            why=why,
            hint="the same again: the approvals are good until the request's deadline",
        )


def _opening(
    papers: Papers,
    asked: Request,
    request: bytes,
    approvals: Sequence[bytes],
    seed_file: Path,
    until: Instant,
) -> dict[str, Any]:
    """The papers as one document. The secret goes as a path: it never passes through this process."""
    return {
        "approvals": [codec.b64(note) for note in approvals],
        "charters": [codec.b64(note) for note in papers.history.notes],
        "names": dict(papers.annex.custodians),
        "realm": papers.history.realm,
        "records": [
            {"epoch": wanted.epoch, "note": codec.b64(note), "register": wanted.register}
            for wanted, note in papers.notes.items()
            if wanted in asked.registers
        ],
        "request": codec.b64(request),
        "seed_file": str(seed_file.absolute()),
        "until": instants.to_text(until),
    }


def _places() -> list[str]:
    """Where modules are found, without the folder somebody happens to stand in: what lies there is anybody's."""
    code = Path(exclave.__file__).parent.parent
    places = [Path(place).absolute() for place in sys.path if place]
    return [str(place) for place in places if place == code or place != Path.cwd()]


def _start(link: socket.socket) -> subprocess.Popen[bytes]:
    """A fresh interpreter with nothing of ours but its code's place: no arguments, no environment, no open files."""
    environment = {
        "LC_ALL": "C.UTF-8",
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(_places()),
    }
    try:
        return subprocess.Popen(
            [sys.executable, "-s", "-P", "-m", "exclave.agents.keyholder"],
            stdin=link.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise Unreachable(
            "keyholder-gone",
            "The keyholder cannot be started",
            why=error.strerror or str(error),
            hint="exclave doctor",
        ) from error
