"""Ask the custodians: an embassy writes down what it wants to open and makes the key of this one session."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exclave.crypto.hashing import sha256
from exclave.crypto.open import SEED_BYTES, public_key_of
from exclave.custody import request as requests
from exclave.custody.request import MAX_REQUEST_BYTES, NONCE_BYTES, REASON_LIMIT, Request, Wanted
from exclave.errors import ExclaveError, Misconfigured
from exclave.flows.papers import Papers, create
from exclave.types import Instant

_SKEW = 300 * 1_000_000_000  # custodians' clocks may be five minutes behind ours


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was written: the file to send to custodians, the secret that stays here."""

    request: Request
    file: Path
    seed_file: Path


def ask(
    papers: Papers,
    *,
    registers: Sequence[str],
    embassy: str,
    reason: str,
    valid_seconds: int,
    out: Path,
    state: Path,
    now: Instant,
    at: Instant | None = None,
    snapshot: int | None = None,
) -> Asked:
    """Write the request for `registers` (names) to `out`, and its secret into `state`. Both durable on return.

    Raises Misconfigured for names, times and reasons that cannot be.
    """
    if not reason or not reason.isprintable() or len(reason) > REASON_LIMIT:
        raise _wrong("reason", f"custodians read it: one printable line of 1 to {REASON_LIMIT} characters")
    if not 0 < valid_seconds <= requests.LONGEST_SECONDS - _SKEW // 10**9:
        raise _wrong("time", f"a request is valid for less than {requests.LONGEST_SECONDS // 86400} days")
    if not registers or len(set(registers)) != len(registers):
        raise _wrong("registers", "name at least one, and each once")
    if snapshot is not None and (at is not None or len(registers) != 1 or snapshot < 1):
        raise _wrong("snapshot", "its number goes with one register and no point in time")
    charter, seed = papers.charter, os.urandom(SEED_BYTES)
    entries = [charter.register(papers.annex.register(name)) for name in registers]
    text = requests.compose(
        charter,
        registers=[Wanted(entry.id, entry.epoch) for entry in entries],
        at=at,
        snapshot=snapshot,
        embassy=papers.annex.embassy_hash(embassy),
        key=public_key_of(seed),
        reason=reason,
        nonce=os.urandom(NONCE_BYTES),
        not_before=Instant(now - _SKEW),
        not_after=Instant(now + valid_seconds * 10**9),
    )
    secret = seed_file(state, text)
    secret.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_expired(state, now)
    create(secret, seed)
    create(secret.with_suffix(".request"), text)
    create(out, text)
    return Asked(requests.parse(text), out, secret)


def seed_file(state: Path, text: bytes) -> Path:
    """Where the secret of the request with this text is kept."""
    return state / "sessions" / f"{sha256(text).hex()}.seed"


def _forget_expired(state: Path, now: Instant) -> None:
    """Remove the secrets of requests whose time is over: nothing can be opened with them any more."""
    for kept in sorted((state / "sessions").glob("*.request")):
        try:
            over = requests.parse(read(kept)).not_after < now
        except ExclaveError:
            continue  # damaged: whether its secret is still needed, nobody can say
        if over:
            kept.with_suffix(".seed").unlink(missing_ok=True)
            kept.unlink()


def read(path: Path, limit: int = MAX_REQUEST_BYTES) -> bytes:
    """The bytes of a request's or an answer's file, at most one more than `limit`. Raises Misconfigured."""
    try:
        # Whoever can put a file beside a request can put a pipe there, whose opening would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise _unreadable(path, "it is no regular file")
            return stream.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def _unreadable(path: Path, why: str) -> Misconfigured:
    return Misconfigured("no-such-file", f"{path} cannot be read", why=why, hint="ls -l")


def _wrong(what: str, why: str) -> Misconfigured:
    return Misconfigured(
        "request-wrong", f"The request's {what} cannot be", why=why, hint="exclave request --help"
    )
