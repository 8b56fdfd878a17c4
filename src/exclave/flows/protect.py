"""Protect: one consistent reading of a register becomes a snapshot that `copies` embassies hold durably.

Order is the crash safety (docs/spec/store.md, section 7): packs, manifest, index, commit, then home's own state,
and only then may the source forget. A crash before the commit leaves unreferenced objects, which the next run
finds in its session file and uses; after it, everything. A commit that was signed is noted before it is published:
no other one may take its number while an embassy that cannot be asked may have it (`flows.outstanding`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from exclave.catalog import RememberedListings
from exclave.embassies.embassy import Embassy
from exclave.embassies.fanout import Fanout
from exclave.errors import Misconfigured
from exclave.flows import catching_up, resuming
from exclave.flows.home import Home, Protected
from exclave.flows.looking import catalog_of, look
from exclave.flows.outstanding import Outstanding
from exclave.flows.sealing_line import SealingLine
from exclave.flows.snapshot import Snapshot
from exclave.flows.told import Told
from exclave.index_files import ChunkIndex
from exclave.locks import exclusive
from exclave.registers.slabs import SlabPool
from exclave.session import Session

SLABS = 6


def protect(
    home: Home, embassies: Sequence[Embassy], *, copies: int, patience_seconds: float, told: Told
) -> Protected:
    """Make the next snapshot of a register. Durable at `copies` embassies on return.

    Raises Busy when another process protects this register, Unreachable when fewer than `copies` embassies can
    hold it (nothing is lost: run again), Refused("writer-fenced") when another writer has taken over, Tampered when
    the source is damaged or the embassies show less than this home has signed.
    """
    if copies > len(embassies):
        raise Misconfigured(
            "copies-impossible",
            f"{copies} embassies must hold a snapshot, and there are only {len(embassies)}",
            why="what was asked for could never be reached",
            hint="exclave embassy add --help   # or a smaller number for `copies` in exclave.toml",
        )
    with exclusive(home.folder / "lock", what=f"protecting {home.name}"), ExitStack() as stack:
        told.phase("look at the embassies")
        catalog = catalog_of(home)
        index = stack.enter_context(ChunkIndex(home.folder / "index" / home.keys.epoch))
        history, sites = look(home, embassies, catalog, index, copies, patience_seconds, told)
        resuming.fill_index(index, history, home.keys, sites, remembered=catalog.position is not None)
        session = Session(home.folder / "session")
        fanout = stack.enter_context(Fanout(sites, copies=copies, patience_seconds=patience_seconds))
        next_pack = catalog.position.next_pack if catalog.position else 0
        resumed = resuming.resume(session, history, home.keys, index, sites, fanout, next_pack=next_pack)
        spare = len(sites) - copies  # an embassy that hangs keeps one buffer (embassies.fanout)
        line = stack.enter_context(SealingLine(home.keys, home.boot_id, fanout, session, spare_buffers=spare))
        with home.register.capture(RememberedListings(catalog), SlabPool(SLABS), told.told) as capture:
            told.phase("read and seal", home.register.size_hint())
            snapshot = Snapshot(home, catalog, history, index, line, resumed)
            snapshot.read(capture)
            told.phase("make it durable abroad")
            snapshot.seal_manifest(capture)
            fanout.settled()
            path, note = snapshot.commit(capture)
            outstanding = Outstanding(home.folder / "signed")
            outstanding.keep(note)
            holders = fanout.publish(path, note)
            index.commit()
            session.clear()
            snapshot.remember(capture, note)
            outstanding.clear()
            capture.settle()
        lacking = {one.name for one in embassies} - holders
        # Those that were dark at the start wait for the next run: reading the whole history costs too much for them.
        behind = {name: why for name, why in history.unreachable.items() if name in lacking}
        if lacking - behind.keys():
            told.phase("bring the others up to date")
            behind = catching_up.catch_up(
                home.keys.register, home.signer.verifier, embassies, told, patience_seconds=patience_seconds
            )
        return snapshot.result(capture, frozenset(one.name for one in embassies) - behind.keys(), behind)
