"""Refuses listings that no file system can have given: what is restored may be wrong on purpose."""

from __future__ import annotations

import os
import stat

from exclave.errors import Tampered
from exclave.listing import MODE, ROOT, SIZE, Listing
from exclave.registers.files.walking import join

_MAX_NAME_BYTES = 255


def check_names(listing: Listing) -> None:
    """One look at all names: they are single components, and no two alike."""
    names = listing.names
    joined = b"\0".join(names)
    distinct = set(names)
    hostile = {b"", b"..", *(() if not listing.path else (ROOT,))} & distinct
    if (
        hostile
        or len(distinct) != len(names)
        or b"/" in joined
        or (names and joined.count(b"\0") != len(names) - 1)
    ):
        raise impossible(listing.path, "names that are empty, double or lead elsewhere")
    if names and max(map(len, names)) > _MAX_NAME_BYTES:
        raise impossible(listing.path, "a name of more than 255 bytes")
    if ROOT in distinct and stat.S_IFMT(int(listing.stats[names.index(ROOT), MODE])) != stat.S_IFDIR:
        raise impossible(listing.path, "the top is no folder")
    if len(names) and int(listing.stats[:, SIZE].min()) < 0:
        raise impossible(listing.path, "a negative size")


def data_bytes(listing: Listing, row: int) -> int:
    """Bytes of content of a sparse file whose data lies in order within its size."""
    holes = listing.extras[row].get("holes", [])
    at = 0
    for offset, length in holes:
        if offset < at or length <= 0:
            raise impossible(join(listing.path, listing.names[row]), "data of a sparse file out of order")
        at = offset + length
    if at > int(listing.stats[row, SIZE]):
        raise impossible(join(listing.path, listing.names[row]), "data of a sparse file beyond its end")
    return sum(length for _, length in holes)


def impossible(path: bytes, why: str) -> Tampered:
    """The error for a tree that cannot be."""
    return Tampered(
        "restore-impossible-tree",
        f"The folder {os.fsdecode(path) or '(top)'!r} of the snapshot cannot exist",
        why=why,
        hint="exclave verify",
    )
