"""The keyholder: a process of its own that joins a register's key for one approved session and answers only for that.

It gets public papers over a socket, reads the session's secret from its file, judges everything itself, and from
then on gives content keys of containers, never a key that opens more than one. At the deadline, when told to stop,
and when its parent has gone, it forgets. Started by `agents.keyholder_client`; its socket is file descriptor 0.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from types import FrameType

from exclave import codec, instants
from exclave.agents.channel import (
    CLOSED,
    KEYS,
    MAX_HEADERS,
    MAX_PAPERS_BYTES,
    OPEN,
    STATE,
    error_reply,
    receive,
    send,
    split_headers,
)
from exclave.agents.hardening import harden
from exclave.charter import history as histories
from exclave.crypto.open import SEED_BYTES
from exclave.custody import opening, record, request
from exclave.custody.request import Wanted
from exclave.custody.session import Session
from exclave.errors import ExclaveError, Misconfigured, NotThere, Refused, Tampered, Unreachable
from exclave.types import Instant

_TICK_SECONDS = 0.5


class Keyholder:
    """One session from its papers to its end."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._parent = os.getppid()
        self._session: Session | None = None
        self._until = 0  # wall clock, nanoseconds
        self._deadline = (
            0  # CLOCK_BOOTTIME, nanoseconds: goes on while the machine sleeps, and nobody can set it
        )
        self._hardening = harden()

    def run(self) -> None:
        """Answer until the socket closes. Every error is an answer; what follows an error is up to the client."""
        signal.signal(signal.SIGALRM, self._tick)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
        signal.setitimer(signal.ITIMER_REAL, _TICK_SECONDS, _TICK_SECONDS)
        try:
            while (message := receive(self._channel, MAX_PAPERS_BYTES)) != CLOSED:
                send(self._channel, self._answer(message))
        finally:
            self._wipe()

    def _answer(self, message: bytes) -> bytes:
        try:
            kind, body = message[:1], message[1:]
            if kind == OPEN and self._deadline == 0:
                return b"+" + self._open(body)
            if kind == KEYS:
                return b"+" + b"".join(self._keys(body))
            if kind == STATE:
                return b"+" + self._state()
            raise Refused(
                "keyholder-refuses", "The keyholder does not do this", why="unknown or out of order"
            )
        except ExclaveError as error:
            return error_reply(error)
        except Exception as error:  # noqa: BLE001  an answer tells it; this process goes on to its deadline
            # Only the kind of a fault leaves this process: a message might quote a secret.
            why = f"{type(error).__name__} in the keyholder"
            return error_reply(Unreachable("keyholder-failed", "The keyholder met a fault", why=why))

    def _open(self, body: bytes) -> bytes:
        papers = codec.decode(body, limit=MAX_PAPERS_BYTES)
        charter = histories.verify(papers["realm"], [codec.unb64(note) for note in papers["charters"]]).newest
        asked = request.parse(codec.unb64(papers["request"]))
        notes = {Wanted(row["register"], row["epoch"]): codec.unb64(row["note"]) for row in papers["records"]}
        request.check(asked, charter, Instant(time.time_ns()))
        records: dict[Wanted, record.Record] = {}
        for one in asked.registers:
            if one not in notes:
                raise NotThere(
                    "custody-missing", f"The custody record of register {one.register} is not here"
                )
            records[one] = record.of_entry(charter.epoch(one.register, one.epoch), notes[one])
        now = Instant(time.time_ns())
        answers = [codec.unb64(note) for note in papers["approvals"]]
        authorised = opening.authorise(charter, records, asked, answers, now=now, names=papers["names"])
        self._until = min(asked.not_after, instants.from_text(papers["until"]))
        seed = _read_seed(Path(papers["seed_file"]))
        try:
            self._session = Session(authorised, seed)
        finally:
            seed[:] = bytes(len(seed))
        self._deadline = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._until - time.time_ns()
        left = (self._deadline - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
        signal.setitimer(signal.ITIMER_REAL, max(0.001, min(left, _TICK_SECONDS)), _TICK_SECONDS)
        return codec.encode({"hardening": self._hardening, "until": instants.to_text(Instant(self._until))})

    def _keys(self, body: bytes) -> list[bytes]:
        headers = split_headers(body)
        if len(headers) > MAX_HEADERS:
            raise Refused(
                "keyholder-refuses", "The keyholder does not do this", why="too many headers at once"
            )
        keys: list[bytes] = []
        for header in headers:
            if self._is_over():
                self._wipe()
            if self._session is None:
                raise Refused(
                    "session-over",
                    "The session is over and its key is forgotten",
                    why=f"it ended at {instants.to_text(Instant(self._until))}"
                    if self._until
                    else "it never began",
                    hint="exclave request   # a new one",
                )
            keys.append(self._session.content_key(header))
        return keys

    def _state(self) -> bytes:
        opened = dict(self._session.opened) if self._session else {}
        return codec.encode({"open": self._session is not None, "opened": opened})

    def _is_over(self) -> bool:
        over = time.clock_gettime_ns(time.CLOCK_BOOTTIME) >= self._deadline or time.time_ns() > self._until
        return self._deadline != 0 and over

    def _wipe(self) -> None:
        if self._session is not None:
            self._session.wipe()
            self._session = None

    def _tick(self, _signal: int, _frame: FrameType | None) -> None:
        """Between two instructions, whatever this process waits for: the deadline needs no cooperation."""
        if self._is_over():
            self._wipe()
        if os.getppid() != self._parent:
            self._stop(0, None)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._wipe()
        os._exit(0)


def _read_seed(path: Path) -> bytearray:
    """The session's secret, from a file that is ours alone."""
    seed = bytearray(SEED_BYTES)
    try:
        with path.open("rb", buffering=0) as stream:
            status = os.fstat(stream.fileno())
            size = stream.readinto(seed)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise Misconfigured(
            "secret-unreadable", f"{path} cannot be read", why=why, hint="exclave request   # a new one"
        ) from error
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        seed[:] = bytes(SEED_BYTES)
        raise Misconfigured(
            "secret-exposed", f"{path} is not kept secret", why="others may read it", hint=f"chmod 600 {path}"
        )
    if size != SEED_BYTES or status.st_size != SEED_BYTES or not stat.S_ISREG(status.st_mode):
        raise Tampered(
            "session-key-wrong", f"{path} is not a session's secret", why=f"it has not {SEED_BYTES} bytes"
        )
    return seed


def main() -> None:
    """The process's whole life."""
    sys.tracebacklimit = 0  # a traceback could quote what is in memory
    channel = socket.socket(fileno=0)
    try:
        Keyholder(channel).run()
    except OSError:
        sys.exit(1)  # the client has gone in the middle of an answer


if __name__ == "__main__":
    main()
