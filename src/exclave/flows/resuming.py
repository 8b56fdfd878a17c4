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


def fill_index(
    index: ChunkIndex,
    history: History,
    keys: WriteKeys,
    embassies: Sequence[Embassy],
    *,
    remembered: bool,
) -> None:
    """When home has lost its index, or a part of it, load it again from the parts it sealed abroad for itself.

    Also when no snapshot is `remembered` that the embassies were seen to show: the index may then know chunks in
    packs that no commit abroad names. An epoch that has no commit yet, or a part that no embassy can give, only
    costs sending chunks again.
    """
    commits = [commit for commit in history.commits if commit.epoch == keys.epoch and commit.index]
    lost = commits and (not len(index) or index.dropped)
    if lost or (len(index) and not remembered):
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
    """Take over packs that were sent before a crash: those still abroad, brought to every embassy in step.

    Not those whose number has meanwhile become another pack's, in a commit of another home with the same keys (a
    clone, or a copy that was restored): a reference is a number, and must never mean two packs.
    """
    committed = {
        pack.id: pack.number
        for commit in history.commits
        if commit.epoch == keys.epoch
        for pack in commit.packs
    }
    numbers = set(committed.values())
    noted = session.pending(keys.epoch)
    fetcher = Fetcher(embassies)
    taken: list[Pending] = []
    for pending in noted:
        ours = committed.get(pending.pack.id) == pending.pack.number
        free = pending.pack.number >= next_pack and pending.pack.number not in numbers
        if ours or (free and _bring(pending, keys, embassies, fetcher, fanout)):
            index.add(pending.ids, index_parts.references(pending.pack.number, len(pending.ids) // 16))
            if not ours:
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
