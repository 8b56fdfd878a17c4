"""An embassy: a site abroad, by name, with the store that is there."""

from __future__ import annotations

from dataclasses import dataclass, field

from exclave.stores.base import Guarantee, Store


@dataclass(frozen=True, slots=True)
class Embassy:
    """`kept` are the guarantees that its store was seen to keep when it was probed; empty when it was not."""

    name: str
    store: Store
    kept: frozenset[Guarantee] = field(default=frozenset())
