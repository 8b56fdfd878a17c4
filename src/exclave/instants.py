"""Instants as text: UTC with nine decimals, in one spelling."""

from __future__ import annotations

import re
from calendar import timegm
from time import gmtime, strftime, strptime

from exclave.errors import Tampered
from exclave.types import Instant

_SPELLING = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", re.ASCII)


def to_text(instant: Instant) -> str:
    """`2026-11-21T14:02:07.000000000Z`."""
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
