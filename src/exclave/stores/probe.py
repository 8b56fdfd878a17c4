"""Probe of a store: what it does when tried, never what it says of itself.

Probe objects lie under `probe/`, hold 1 KiB that follows from their name, and stay: a store has no deletion.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from exclave.errors import ExclaveError, Misconfigured, Refused, Unreachable
from exclave.stores.base import Guarantee, Probe, Store
from exclave.stores.wrapping import innermost

FOLDER = "probe/"
PROBE_BYTES = 1024


@runtime_checkable
class Breakable(Protocol):
    """A store whose locks can be attacked."""

    def break_lock(self, name: str) -> str:
        """Try to destroy an object as a thief of the credentials would; what worked, or "" if nothing did."""
        ...


def content(name: str, *, second: bool = False) -> bytes:
    """The bytes of a probe object; `second` are the others, which a create-only store refuses."""
    return hashlib.shake_256(f"exclave/probe/v1 {name} {int(second)}".encode()).digest(PROBE_BYTES)


def probe(store: Store) -> Probe:
    """Try every guarantee. Leaves one or two small objects. Raises Unreachable, Misconfigured."""
    name = FOLDER + secrets.token_hex(16)
    store.put(name, content(name))
    broken: dict[Guarantee, str] = {}
    checks: list[tuple[Guarantee, Callable[[Store, str], str]]] = [
        (Guarantee.RANGES, _ranges),
        (Guarantee.LISTING, _listing),
        (Guarantee.CREATE_ONLY, _create_only),
        (Guarantee.LOCKED, _locked),
    ]
    for guarantee, check in checks:
        try:
            went = check(store, name)
        except (Unreachable, Misconfigured):
            raise
        except ExclaveError as error:
            went = str(error)
        if went:
            broken[guarantee] = went
    return Probe(frozenset(Guarantee) - broken.keys(), broken)


def _ranges(store: Store, name: str) -> str:
    whole = content(name)
    if store.get(name, limit=PROBE_BYTES) != whole or store.size(name) != PROBE_BYTES:
        return "an object that was just stored comes back otherwise"
    for start, length in ((0, 1), (100, 300), (PROBE_BYTES - 7, 7), (0, PROBE_BYTES)):
        if store.get_range(name, start, length) != whole[start : start + length]:
            return f"asked for {length} bytes from {start}, the store gave others"
    return ""


def _listing(store: Store, name: str) -> str:
    # `after` keeps it to a few rows, however many probes lie there.
    rows = list(store.list(FOLDER, after=name[:-1]))
    if (name, PROBE_BYTES) not in rows:
        return "an object that was just stored is not listed, or with another size"
    if any(row.name <= name[:-1] or not row.name.startswith(FOLDER) for row in rows):
        return "the listing holds names that were not asked for"
    return ""


def _create_only(store: Store, name: str) -> str:
    try:
        store.put(name, content(name))
    except Refused:
        return "the same bytes under the same name are refused"
    try:
        store.put(name, content(name, second=True))
    except Refused:
        said = "refused"
    else:
        said = "accepted"
    if store.get(name, limit=PROBE_BYTES) != content(name):
        return f"a second create under one name was {said}, and the object is another one now"
    return "" if said == "refused" else "a second create under one name was accepted, though nothing changed"


def _locked(store: Store, name: str) -> str:
    adapter = innermost(store)
    if not isinstance(adapter, Breakable):
        return "this kind of store has no retention locks"
    went = adapter.break_lock(name)
    if went:
        return went
    if store.get(name, limit=PROBE_BYTES) != content(name):
        return "the store refused to delete an object, and yet it is gone or altered"
    return ""
