"""Instants and spans as people write and read them."""

from __future__ import annotations

import re
import time

from exclave import instants
from exclave.cli.progress import span
from exclave.errors import Misconfigured
from exclave.types import Instant

_SPAN = re.compile(r"(\d+)\s*(s|min|m|h|d)?", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
SECOND = 1_000_000_000


def now() -> Instant:
    """The present, by this machine's clock."""
    return Instant(time.time_ns())


def plural(count: int, word: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def clock(instant: Instant) -> str:
    """`2026-11-21 14:02:07 UTC`."""
    return instants.to_text(instant)[:19].replace("T", " ") + " UTC"


def age(instant: Instant) -> str:
    """How long ago: `3 h 20 min`."""
    return span(max(0, (now() - instant) / SECOND))


def seconds(text: str) -> int:
    """`90`, `15min`, `2h`, `1d` in seconds. Raises Misconfigured."""
    found = _SPAN.fullmatch(text.strip())
    if found is None or int(found[1]) == 0:
        raise Misconfigured(
            "span-wrong",
            f"{text!r} is no span of time",
            why="write 90s, 15min, 2h or 1d",
            hint="exclave --help",
        )
    return int(found[1]) * _SECONDS[found[2] or ""]


def instant(text: str) -> Instant:
    """`2026-11-21T14:02:07Z`, any other offset, or `now`. Raises Misconfigured, also when no zone is said."""
    from datetime import UTC, datetime

    if text == "now":
        return now()
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise ValueError("it names no time zone; end it with Z or +01:00")
    except ValueError as error:
        hint = "write it like 2026-11-21T14:02:07Z"
        raise Misconfigured("instant-wrong", f"{text!r} is no instant", why=str(error), hint=hint) from error
    since = found.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return Instant((since.days * 86_400 + since.seconds) * SECOND + since.microseconds * 1000)
