"""Resuming: what an interrupted or forgetful home can still use of what is abroad already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from exclave.embassies.embassy import Embassy
from exclave.embassies.fanout import Fanout
from exclave.embassies.fetch import Fetcher
from exclave.embassies.inspect import History
from exclave.errors import ExclaveError
from exclave.index_files import ChunkIndex
from exclave.sealed import index_parts, names
from exclave.sealed.commits import Commit
from exclave.sealed.folders import Ints
from exclave.sealed.keys import WriteKeys
from exclave.session import Pending, Session


@dataclass(frozen=True, slots=True)
class Resumed:
    """Packs of an interrupted run that the next commit takes over, and the first pack number that is free."""

    pending: list[Pending]
    next_pack: int


def fill_index(index: ChunkIndex, history: History, keys: WriteKeys, embassies: Sequence[Embassy]) -> None:
    """When home has lost its index, or a part of it, load it again from the parts it sealed abroad for itself.

    An epoch that has no commit yet, or a part that no embassy can give, only costs sending chunks again.
    """
    commits = [commit for commit in history.commits if commit.epoch == keys.epoch and commit.index]
    if commits and (not len(index) or index.dropped):
        index.load(_records(commits, keys, Fetcher(embassies)))


def resume(
    session: Session,
    history: History,
    keys: WriteKeys,
    index: ChunkIndex,
    embassies: Sequence[Embassy],
    fanout: Fanout,
    *,
    next_pack: int,
) -> Resumed:
    """Take over packs that were sent before a crash: those still abroad, brought to every embassy in step."""
    committed = {
        pack.id: pack.number
        for commit in history.commits
        if commit.epoch == keys.epoch
        for pack in commit.packs
    }
    noted = session.pending(keys.epoch)
    fetcher = Fetcher(embassies)
    taken: list[Pending] = []
    for pending in noted:
        if pending.pack.id in committed or _bring(pending, keys, embassies, fetcher, fanout):
            index.add(pending.ids, index_parts.references(pending.pack.number, len(pending.ids) // 16))
            if pending.pack.id not in committed:
                taken.append(pending)
    used = [*committed.values(), *(pending.pack.number for pending in noted)]
    return Resumed(taken, max([next_pack, *(number + 1 for number in used)]))


def _bring(
    pending: Pending, keys: WriteKeys, embassies: Sequence[Embassy], fetcher: Fetcher, fanout: Fanout
) -> bool:
    """Whether the pack is abroad; where it is not, it is copied from where it is (home could not seal it alike)."""
    path = names.pack(keys.register, keys.epoch, pending.pack.id)
    holders = [embassy for embassy in embassies if _has(embassy, path, pending.pack.size)]
    if not holders:
        return False
    if len(holders) < len(embassies):
        try:
            data = fetcher.get(path, pending.pack.id, pending.pack.size)
        except ExclaveError:
            return False  # its chunks are sealed and sent again
        fanout.put(path, data, None)
    return True


def _has(embassy: Embassy, path: str, size: int) -> bool:
    try:
        return embassy.store.size(path) == size
    except ExclaveError:
        return False  # missing or unreachable: the fan-out will find out which


def _records(commits: list[Commit], keys: WriteKeys, fetcher: Fetcher) -> Iterator[tuple[bytes, Ints]]:
    for commit in commits:
        for part in commit.index:
            try:
                data = fetcher.get(names.index(keys.register, keys.epoch, part.id), part.id, part.size)
            except ExclaveError:
                continue
            yield from index_parts.read(data, keys.index_key)
