"""What every wrapper has in common: the store that it wraps."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from exclave.stores.base import Store


@runtime_checkable
class Wrapper(Protocol):
    """A store around another."""

    @property
    def inner(self) -> Store:
        """The wrapped store."""
        ...


def innermost(store: Store) -> Store:
    """The adapter under all wrappers; it may know how to do more than the port asks."""
    while isinstance(store, Wrapper):
        store = store.inner
    return store
