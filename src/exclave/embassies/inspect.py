"""Inspect: read and verify a register's commits at every embassy, and join them into the one history they must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from exclave.crypto import hashing
from exclave.crypto.sign import MAX_NOTE_BYTES, Verifier
from exclave.embassies.embassy import Embassy
from exclave.errors import Misconfigured, NotThere, Tampered, Unreachable
from exclave.printable import printable
from exclave.sealed import commits, names
from exclave.sealed.commits import FIRST, Commit
from exclave.stores.base import Listed
from exclave.stores.bounded import ascending
from exclave.types import ObjectId, RegisterId


class Known(NamedTuple):
    """A commit that the caller has verified before, and from which a history may start."""

    term: int
    sequence: int
    id: str  # SHA-256 of the stored note, hex


@dataclass(frozen=True, slots=True)
class Link:
    """A verified commit and its stored form."""

    path: str
    id: ObjectId
    size: int  # bytes of the note
    commit: Commit


@dataclass(frozen=True, slots=True)
class Trouble:
    """Where an embassy's chain stops being good."""

    embassy: str
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Chain:
    """What one embassy shows. `head` is the sequence of its last good commit; `links` begin behind the known one."""

    links: tuple[Link, ...]
    head: int
    troubles: tuple[Trouble, ...]


@dataclass(frozen=True, slots=True)
class History:
    """The longest chain of the embassies that answer; `links` oldest first, from the one after `start`."""

    start: tuple[
        int, str
    ]  # sequence and hash before the first link: (0, 64 zeros) unless a known one was given
    links: tuple[Link, ...]
    heads: dict[str, int]  # by embassy that answers: sequence of its last good commit, 0 for none
    unreachable: dict[str, str]
    troubles: tuple[Trouble, ...]

    @property
    def commits(self) -> tuple[Commit, ...]:
        """The commits, oldest first."""
        return tuple(link.commit for link in self.links)

    @property
    def head_sequence(self) -> int:
        """Number of the newest commit, 0 when there is none."""
        return self.links[-1].commit.sequence if self.links else self.start[0]

    @property
    def head_hash(self) -> str:
        """What the next commit names as its previous one."""
        return self.links[-1].id if self.links else self.start[1]

    def hash_of(self, sequence: int) -> str | None:
        """Hash of a commit of this history, or None when it does not reach it."""
        if sequence == self.start[0]:
            return self.start[1]
        place = sequence - self.start[0] - 1
        return self.links[place].id if 0 <= place < len(self.links) else None


def history(
    embassies: Sequence[Embassy],
    register: RegisterId,
    writers: Verifier | Sequence[Verifier],
    *,
    known: Known | None = None,
) -> History:
    """Read every embassy at once and join what they show.

    With `known`, only what came after it is read; an embassy that does not reach it counts up to its newest commit,
    which is verified, its older ones only counted. Raises Tampered("history-forked") when two validly signed commits
    contradict each other, Unreachable when no embassy answers.
    """
    chains: dict[str, Chain] = {}
    unreachable: dict[str, str] = {}
    with ThreadPoolExecutor(max(1, len(embassies)), thread_name_prefix="inspect") as pool:
        futures = [(one, pool.submit(chain, one, register, writers, known=known)) for one in embassies]
        for embassy, future in futures:
            try:
                chains[embassy.name] = future.result()
            except (Unreachable, Misconfigured) as error:
                unreachable[embassy.name] = str(error)
    if not chains:
        why = "\n".join(f"{name}: {reason}" for name, reason in unreachable.items())
        raise Unreachable("embassies-unreachable", "No embassy answers", why=why, hint="exclave doctor")
    longest = max(chains.values(), key=lambda one: len(one.links))
    for name, one in chains.items():
        for theirs, ours in zip(one.links, longest.links, strict=False):
            if theirs.id != ours.id:
                raise _forked(register, theirs.path, name)
    return History(
        start=(known.sequence, known.id) if known else (0, FIRST),
        links=longest.links,
        heads={name: one.head for name, one in chains.items()},
        unreachable=unreachable,
        troubles=tuple(trouble for one in chains.values() for trouble in one.troubles),
    )


def chain(
    embassy: Embassy,
    register: RegisterId,
    writers: Verifier | Sequence[Verifier],
    *,
    known: Known | None = None,
) -> Chain:
    """The good commits of one embassy. Raises Unreachable, Misconfigured, Tampered("history-forked")."""
    reader = _Reader(embassy, register, [writers] if isinstance(writers, Verifier) else list(writers))
    if known is None or known.sequence == 0:
        return reader.read("")
    path = names.commit(register, known.term, known.sequence)
    try:
        note = embassy.store.get(path, limit=MAX_NOTE_BYTES)
    except NotThere:
        return reader.newest(known)
    except Tampered as error:
        return reader.doubt(path, error, known)
    if hashing.object_id(note) != known.id:
        try:
            reader.decode(path, note)
        except Tampered as error:
            return reader.doubt(path, error, known)
        raise _forked(register, path, embassy.name)
    reader.last, reader.last_id, reader.term = known.sequence, known.id, known.term
    return reader.read(path)


class _Reader:
    """Walks one embassy's commits, in order."""

    def __init__(self, embassy: Embassy, register: RegisterId, writers: list[Verifier]) -> None:
        self._embassy = embassy
        self._register = register
        self._writers = writers
        self.last, self.last_id, self.term = 0, FIRST, 0

    def read(self, after: str) -> Chain:
        """All good commits that are listed after a path and follow on what was read."""
        links: list[Link] = []
        try:
            return self._follow(after, links)
        except Tampered as error:
            if error.id == "history-forked":
                raise
            return self._chain(links, names.commits(self._register), error.why or error.what)

    def _follow(self, after: str, links: list[Link]) -> Chain:
        for row in self._listed(after):
            try:
                self._numbers(row.name)
                note = self._embassy.store.get(row.name, limit=MAX_NOTE_BYTES)
                commit = self.decode(row.name, note)
            except (Tampered, NotThere) as error:
                return self._chain(links, row.name, error.why or error.what)
            if commit.sequence > self.last + 1:
                return self._chain(links, row.name, f"commit {self.last + 1} is missing before it")
            if commit.sequence <= self.last or commit.previous != self.last_id:
                # Signed, and yet it does not follow what the same writer signed before.
                raise _forked(self._register, row.name, self._embassy.name)
            found = hashing.object_id(note)
            links.append(Link(row.name, found, len(note), commit))
            self.last, self.last_id, self.term = commit.sequence, found, commit.term
        return Chain(tuple(links), self.last, ())

    def newest(self, known: Known) -> Chain:
        """For an embassy that does not reach the known commit: count, and verify the newest."""
        try:
            return self._count(known)
        except Tampered as error:
            return self._chain([], names.commits(self._register), error.why or error.what)

    def _count(self, known: Known) -> Chain:
        newest = ""
        for row in self._listed():
            try:
                _, sequence = self._numbers(row.name)
            except Tampered:
                continue
            if sequence != self.last + 1 or sequence >= known.sequence:
                return self._chain([], row.name, f"commit {self.last + 1} is missing before it")
            self.last, newest = sequence, row.name
        if newest:
            try:
                self.decode(newest, self._embassy.store.get(newest, limit=MAX_NOTE_BYTES))
            except (Tampered, NotThere) as error:
                self.last -= 1
                return self._chain([], newest, error.why or error.what)
        return Chain((), self.last, ())

    def doubt(self, path: str, error: Tampered, known: Known) -> Chain:
        """The embassy's copy of the known commit is bad: it counts up to before it."""
        self.last = known.sequence - 1
        return self._chain([], path, error.why or error.what)

    def decode(self, path: str, note: bytes) -> Commit:
        """The commit that a writer signed, if it is the one that its path says. Raises Tampered."""
        numbers = self._numbers(path)
        commit = self._signed(note)
        if numbers != (commit.term, commit.sequence) or commit.register != self._register:
            raise _invalid("its path and its content do not belong together")
        if numbers[0] < self.term:
            raise _invalid("its term is lower than one before it")
        return commit

    def _listed(self, after: str = "") -> Iterator[Listed]:
        return ascending(self._embassy.store.list(names.commits(self._register), after=after))

    def _numbers(self, path: str) -> tuple[int, int]:
        """Term and sequence in the path of a commit of this register. A host may list any path at all."""
        try:
            numbers = names.commit_number(path)
        except ValueError as error:
            raise _invalid("its path is not that of a commit") from error
        if path != names.commit(self._register, *numbers):
            raise _invalid("its path is not that of a commit")
        return numbers

    def _signed(self, note: bytes) -> Commit:
        failure = _invalid("no writer of this register is known")
        for writer in self._writers:
            try:
                return commits.decode(note, writer)
            except Tampered as error:
                failure = error
        raise failure

    def _chain(self, links: list[Link], path: str, why: str) -> Chain:
        return Chain(tuple(links), self.last, (Trouble(self._embassy.name, printable(path), why),))


def _invalid(why: str) -> Tampered:
    return Tampered("commit-invalid", "A commit cannot be trusted", why=why, hint="exclave verify")


def _forked(register: RegisterId, path: str, embassy: str) -> Tampered:
    return Tampered(
        "history-forked",
        f"Register {register} has two histories",
        why=f"{path} at {embassy} is validly signed and contradicts another signed commit",
        hint="stop every writer of this register; exclave explain history-forked",
    )
