"""The port of a store: create-only named objects that stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from exclave.types import Buffer


class Listed(NamedTuple):
    """One object of a listing."""

    name: str
    size: int  # bytes


class Store(Protocol):
    """Named immutable objects. Names are relative, ASCII `[A-Za-z0-9._/-]`, no empty or dot parts, <= 200 characters.

    Safe to use from several threads. Every method may raise Unreachable (try again), Misconfigured (no permission,
    no such bucket).
    """

    def put(self, name: str, data: Buffer) -> None:
        """Create. Durable on return (file and directory fsynced, or acknowledged by the store).

        The same bytes again are fine. Other bytes under an existing name: Refused("store-conflict"); nothing changes.
        No reader ever sees a part of an object.
        """
        ...

    def get(self, name: str, *, limit: int) -> bytes:
        """The whole object. NotThere("object-missing"); Tampered("object-too-long") beyond `limit` bytes, unread."""
        ...

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`. NotThere; Tampered when the object is shorter than that."""
        ...

    def size(self, name: str) -> int:
        """Bytes of an object. NotThere."""
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Every complete object whose name begins with `prefix` (a folder with its slash, or ""), sorted by name.

        Only names greater than `after`, if given; a store skips the others without looking at each.
        """
        ...


class Guarantee(StrEnum):
    """What a store was seen to do when it was probed (`stores.probe`), never what it says of itself."""

    CREATE_ONLY = "create-only"  # a second create of a name is refused and changes nothing
    RANGES = "ranges"  # ranged reads give the right bytes
    LISTING = "listing"  # a new object is listed at once
    LOCKED = "locked"  # a new object is under a retention lock that this client can neither lift nor shorten


@dataclass(frozen=True, slots=True)
class Probe:
    """Result of probing a store: the guarantees seen, and for each missing one what happened instead."""

    kept: frozenset[Guarantee]
    broken: dict[Guarantee, str]
