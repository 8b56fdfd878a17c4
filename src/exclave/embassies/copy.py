"""Copy: bring an embassy up to date from the others. No keys, no home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from exclave.embassies.embassy import Embassy
from exclave.embassies.fetch import Fetcher
from exclave.embassies.inspect import History
from exclave.errors import NotThere, Refused, Tampered, Unreachable
from exclave.sealed import names
from exclave.sealed.commits import Commit
from exclave.types import Buffer, ObjectId, RegisterId


@dataclass(frozen=True, slots=True)
class Copied:
    """What one catching up moved."""

    objects: int
    bytes: int
    head: int  # sequence of the target's newest commit now


def catch_up(
    target: Embassy,
    sources: Sequence[Embassy],
    register: RegisterId,
    history: History,
    told: Callable[[int, int], None],
) -> Copied:
    """Copy what `target` lacks of a history, commit by commit: its objects first, then the commit itself.

    Every copy is checked against the name and size that the signed commit gives; a bad one is passed over. Stop it
    at any moment and call it again: it goes on where it was. `told` gets objects and bytes so far, after
    each object, also after one that was there. Raises NotThere,
    Tampered, Unreachable when no source has an object, Refused when the target holds other bytes under its name.
    """
    fetcher = Fetcher([source for source in sources if source.name != target.name])
    begun = history.heads.get(target.name)
    if begun is None:
        why = history.unreachable.get(target.name, "its commits were not read")
        raise Unreachable(
            "store-unreachable", f"{target.name} cannot catch up", why=why, hint="exclave doctor"
        )
    if begun < history.start[0] or any(link.commit.register != register for link in history.links):
        raise ValueError("the history begins after what the target lacks, or is another register's")
    objects, moved, head = 0, 0, begun
    for link in history.links:
        if link.commit.sequence <= begun:
            continue
        for path, object_id, size in (*named(link.commit), (link.path, link.id, link.size)):
            if not _holds(target, path, size):
                data = fetcher.get(path, object_id, size)
                _put(target, path, data)
                objects, moved = objects + 1, moved + size
            told(objects, moved)
        head = link.commit.sequence
    return Copied(objects, moved, head)


def named(commit: Commit) -> Iterator[tuple[str, ObjectId, int]]:
    """Path, id and size of every sealed object that a commit names, in the order in which they are written."""
    for pack in commit.packs:
        yield names.pack(commit.register, commit.epoch, pack.id), pack.id, pack.size
    for part in commit.manifest:
        yield names.manifest(commit.register, commit.epoch, part.id), part.id, part.size
    for part in commit.index:
        yield names.index(commit.register, commit.epoch, part.id), part.id, part.size


def _holds(target: Embassy, path: str, size: int) -> bool:
    try:
        found = target.store.size(path)
    except NotThere:
        return False
    if found != size:
        why = f"{found} bytes instead of {size}, and objects cannot be replaced"
        raise Tampered(
            "object-damaged", f"{path} is damaged at {target.name}", why=why, hint="exclave verify"
        )
    return True


def _put(target: Embassy, path: str, data: Buffer) -> None:
    try:
        target.store.put(path, data)
    except Refused as error:
        raise Refused(error.id, f"{target.name}: {error.what}", why=error.why, hint=error.hint) from error
