"""Looking before a snapshot is made: what home remembers, what the embassies show, and whether the two agree."""

from __future__ import annotations

from collections.abc import Sequence

from exclave import positions
from exclave.catalog import Catalog
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import History, Known
from exclave.errors import Tampered, Unreachable
from exclave.flows import catching_up
from exclave.flows.home import Home
from exclave.flows.outstanding import Outstanding
from exclave.flows.told import Told
from exclave.index_files import ChunkIndex
from exclave.positions import Position
from exclave.sealed.manifest import MAX_DEPTH


def catalog_of(home: Home) -> Catalog:
    """What home remembers of the last snapshot; nothing, when that was sealed to another key."""
    catalog = Catalog.load(home.folder / "catalog")
    if catalog.position is not None and catalog.position.epoch != home.keys.epoch:
        return Catalog(home.folder / "catalog")  # another sealing key: a new, full beginning
    return catalog


def look(
    home: Home, embassies: Sequence[Embassy], catalog: Catalog, index: ChunkIndex, copies: int,
    patience_seconds: float, told: Told,
) -> tuple[History, list[Embassy]]:  # fmt: skip
    """The chain of commits abroad, and the embassies that have all of it.

    Those that do not would otherwise get a commit without the ones before it; they are brought up to date first
    when too few others are left, else after the snapshot. Raises Tampered when the chain is shorter than, or
    differs from, what this home signed.
    """
    follows = catalog.position
    known = None
    if follows is not None and follows.depth < MAX_DEPTH and len(index) and not index.dropped:
        known = Known(follows.term, follows.sequence, follows.commit_hash)
    register, verifier = home.keys.register, home.signer.verifier
    history = inspect.history(embassies, register, verifier, known=known)
    signed = positions.load(catalog.folder)  # also when the next snapshot cannot follow on it
    if signed is not None:
        _refuse_rollback(home, history, signed)
    if Outstanding(home.folder / "signed").publish(history, verifier, embassies):
        history = inspect.history(embassies, register, verifier, known=known)
    sites = catching_up.in_step(embassies, history)
    if len(sites) < copies:
        told.phase("bring embassies up to date")
        behind = catching_up.catch_up(register, verifier, embassies, told, patience_seconds=patience_seconds)
        sites = [one for one in embassies if one.name not in behind]
        if len(sites) < copies:
            raise Unreachable(
                "copies-missing",
                f"{home.name} must be held by {copies} embassies, and only {len(sites)} can take it",
                why="; ".join(f"{name}: {why}" for name, why in behind.items()),
                hint="exclave doctor   # nothing is lost; run protect again when they answer",
            )
    return history, sites


def _refuse_rollback(home: Home, history: History, signed: Position) -> None:
    """Raise unless the embassies show what this home signed last: another writer's history must not begin here."""
    if (
        history.hash_of(signed.sequence) == signed.commit_hash
        and max(history.heads.values()) >= signed.sequence
    ):
        return
    what = f"The embassies do not show snapshot {signed.sequence} of {home.name} as this home signed it"
    if history.unreachable:
        raise Unreachable(
            "newest-unreachable",
            what,
            why="; ".join(f"{name}: {why}" for name, why in history.unreachable.items()),
            hint="exclave doctor   # nothing is lost; run protect again when they answer",
        )
    raise Tampered(
        "embassies-rolled-back",
        what,
        why="every embassy has less, or something else, than this home made durable there",
        hint=f"exclave where {home.name}   # then keep the stores as they are, and investigate",
    )
