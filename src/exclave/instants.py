"""Instants as text: UTC with nine decimals, in one spelling."""

from __future__ import annotations

import re
from calendar import timegm
from time import gmtime, strftime, strptime

from exclave.errors import Misconfigured, Tampered
from exclave.types import Instant

# Years of four digits, in nanoseconds: what lies outside was said by a broken clock, and no reader would take it.
_EARLIEST, _END = -30_610_224_000 * 10**9, 253_402_300_800 * 10**9
_SPELLING = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)


def to_text(instant: Instant) -> str:
    """`2026-11-21T14:02:07.000000000Z`. Raises Misconfigured for a moment that has no such spelling."""
    if not _EARLIEST <= instant < _END:
        raise Misconfigured(
            "clock-wrong",
            "This machine's clock cannot be right",
            why="it is not in a year of four digits, and nobody could read what was dated so",
            hint="set the clock, then run it again",
        )
    seconds, rest = divmod(instant, 1_000_000_000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{rest:09d}Z"


def from_text(text: str) -> Instant:
    """The instant in the one spelling that `to_text` writes. Raises Tampered for any other."""
    if not _SPELLING.fullmatch(text):
        raise Tampered("document-malformed", "A stored document cannot be read", why="a malformed instant")
    try:
        seconds = timegm(strptime(text[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError as error:
        raise Tampered(
            "document-malformed", "A stored document cannot be read", why="no such instant"
        ) from error
    return Instant(seconds * 1_000_000_000 + int(text[20:29]))
