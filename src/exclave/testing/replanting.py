"""Rebuilds a tree of files from what one capture told, without a store between them."""

from __future__ import annotations

import random
from pathlib import Path

from exclave.registers.files.rebuilding import TreeBuilder
from exclave.testing.observing import Observation
from exclave.types import Gap


def replant(
    seen: Observation, place: Path, *, keep_owners: bool, seed: int = 0, piece_bytes: int = 0
) -> list[Gap]:
    """Build `seen` into `place`, content in an order by chance (`seed`) and in pieces, if their size is given."""
    owners = seen.environment["owners"]
    pieces: list[tuple[int, int, memoryview]] = []
    with TreeBuilder(place, owners=owners, keep_owners=keep_owners) as builder:
        for path, listing in sorted(seen.remembered.folders.items()):
            for row, number in enumerate(builder.folder(listing).tolist()):
                if number < 0:
                    continue
                name = listing.names[row]
                content = memoryview(seen.content[path + b"/" + name if path else name])
                size = piece_bytes or len(content)
                pieces += [(number, at, content[at : at + size]) for at in range(0, len(content), size)]
        random.Random(seed).shuffle(pieces)  # noqa: S311 - an order that can be had again, no secret
        for number, offset, piece in pieces:
            builder.write(number, offset, piece)
        return builder.finish()
