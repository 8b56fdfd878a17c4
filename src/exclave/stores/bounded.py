"""Listings that end: a host may answer with names for ever, and must neither hold us up nor fill our memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exclave.errors import Tampered
from exclave.stores.base import Listed

MAX_NAMES = 5_000_000  # of one listing


def endless(why: str) -> Tampered:
    """What is listed cannot be all that was written here."""
    return Tampered("listing-endless", "The listing does not end", why=why, hint="exclave verify")


def too_many(count: int) -> None:
    """Raises Tampered once more names were counted than a listing may have."""
    if count > MAX_NAMES:
        raise endless(f"it has more than {MAX_NAMES} names")


def ascending(rows: Iterable[Listed]) -> Iterator[Listed]:
    """The same rows, as long as each name is greater than the one before. Raises Tampered("listing-endless")."""
    last = ""
    for count, row in enumerate(rows, 1):
        too_many(count)
        if row.name <= last:
            raise endless("a name is listed twice, or behind a greater one")
        last = row.name
        yield row
