"""Reading a snapshot's tree back: its chain of manifests, opened and folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exclave.embassies.fetch import Fetcher
from exclave.errors import Tampered
from exclave.sealed import container, folding, names, opening
from exclave.sealed.commits import Commit, Pack, Part
from exclave.sealed.folding import Tree
from exclave.sealed.keys import Opener
from exclave.sealed.manifest import MAX_DEPTH, Head
from exclave.sealed.opening import Expected, Record


class SnapshotReader:
    """Opens objects of one register epoch, fetched from whichever embassy has them whole."""

    def __init__(self, commit: Commit, fetcher: Fetcher, opener: Opener) -> None:
        self._commit = commit
        self._fetcher = fetcher
        self._opener = opener

    def tree(self) -> Tree:
        """The complete, checked tree of the commit's snapshot. Raises Tampered, NotThere, Unreachable, Refused."""
        chain: list[list[Record]] = []
        parts = self._commit.manifest
        while parts:
            records = [record for part in parts for record in self._records(part)]
            head = records[-1] if records else None
            if not isinstance(head, Head) or len(chain) > MAX_DEPTH:
                raise Tampered(
                    "manifest-invalid", "A snapshot cannot be put together",
                    why="a manifest without a head, or too long a chain of them", hint="exclave verify",
                )  # fmt: skip
            chain.append(records)
            parts = head.parents
        tree = Tree()
        for records in reversed(chain):
            folding.apply(tree, records)
        folding.check(tree)
        self._check_identity(tree.head)
        return tree

    def packs(self, wanted: Sequence[Pack]) -> Iterator[memoryview]:
        """The plaintexts of packs, in order; a few are fetched ahead."""
        register, epoch = self._commit.register, self._commit.epoch
        fetched = self._fetcher.get_many(
            (names.pack(register, epoch, pack.id), pack.id, pack.size) for pack in wanted
        )
        for pack, data in zip(wanted, fetched, strict=True):
            yield opening.open_object(data, self._expected(container.PACK, pack.number), self._opener)

    def _records(self, part: Part) -> list[Record]:
        path = names.manifest(self._commit.register, self._commit.epoch, part.id)
        data = self._fetcher.get(path, part.id, part.size)
        plain = opening.open_object(data, self._expected(container.MANIFEST), self._opener)
        return [opening.read_record(record) for record in opening.slots(plain)]

    def _expected(self, kind: int, number: int | None = None) -> Expected:
        commit = self._commit
        return Expected(kind, bytes.fromhex(commit.realm), commit.register, commit.epoch, number)

    def _check_identity(self, head: Head | None) -> None:
        commit = self._commit
        said = (head.term, head.sequence, head.consistent_at) if head else ()
        if said != (commit.term, commit.sequence, commit.at):
            raise Tampered(
                "manifest-invalid", "A commit and its manifest do not belong together",
                why="the sealed manifest names another snapshot than the commit that refers to it",
                hint="exclave verify",
            )  # fmt: skip
