"""Verify: every stored byte in every embassy against what the signed commits say. Needs no key.

Commits and their chain, the SHA-256 and size of each object, its header against the commit that names it, the
charters from the realm's first on, custody records against the charter, and whatever should not be there at all.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, runtime_checkable

from exclave.crypto.sign import Verifier
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.inspect import Chain
from exclave.errors import ExclaveError, Misconfigured, NotThere, Tampered, Unreachable
from exclave.flows import paper_trail, wellformed
from exclave.flows.told import Told
from exclave.flows.verification import Looked, Problem, Report
from exclave.flows.wellformed import Expected
from exclave.printable import printable
from exclave.sealed import container, names
from exclave.sealed.commits import FIRST
from exclave.stores.base import Listed
from exclave.stores.bounded import ascending
from exclave.stores.wrapping import innermost
from exclave.types import RegisterId

READ_BYTES = 2 << 20
THREADS = 2
QUEUED = 64
MAX_PAPERS_BYTES = 64 << 20  # kept of one embassy's charters and custody records, which are judged together
_START_BYTES = 4096  # enough of an object for its header

Writers = Verifier | Sequence[Verifier]


@runtime_checkable
class Open(Protocol):
    """A store that can hold things which are no objects."""

    def strangers(self) -> Iterator[str]:
        """Their paths, printable."""
        ...


def verify(
    embassies: Sequence[Embassy],
    registers: Sequence[tuple[RegisterId, Writers]],
    *,
    sample: float | None = None,
    told: Told,
    realm: str | None = None,
    chance: Callable[[], float] = random.random,
) -> Report:
    """Look at everything in every embassy; with `sample`, read only that part (0 to 1) of the sealed objects.

    `realm` (hex) defaults to the one that the commits name. Raises nothing for what embassies do: it is reported.
    """
    run = _Run(told, sample, chance)
    told.phase("read the commits")
    shown = run.chains(embassies, registers)
    told.phase("list what is there")
    listed = {embassy.name: rows for embassy in embassies if (rows := run.listing(embassy)) is not None}
    told.phase("check every byte", sum(row.size for rows in listed.values() for row in rows))
    with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as pool:
        for embassy in embassies:
            if embassy.name in listed:
                run.embassy(embassy, listed[embassy.name], shown, pool, realm)
    newest: dict[str, int] = {
        register: max((chain.head for chain in chains.values()), default=0)
        for register, chains in shown.items()
    }
    return Report(tuple(run.looked.values()), tuple(run.problems), run.unreachable, newest, sample)


class _Run:
    """One verification: its findings, and the work that fills them."""

    def __init__(self, told: Told, sample: float | None, chance: Callable[[], float]) -> None:
        self._told = told
        self._sample = sample
        self._chance = chance
        self._lock = threading.Lock()
        self._done = [0, 0]
        self._papers_bytes = 0
        self.looked: dict[str, Looked] = {}
        self.problems: list[Problem] = []
        self.unreachable: dict[str, str] = {}

    def chains(
        self, embassies: Sequence[Embassy], registers: Sequence[tuple[RegisterId, Writers]]
    ) -> dict[RegisterId, dict[str, Chain]]:
        """What each embassy shows of each register; contradictions are reported."""
        shown: dict[RegisterId, dict[str, Chain]] = {register: {} for register, _ in registers}
        for embassy in embassies:
            looked = self.looked[embassy.name] = Looked(embassy.name)
            for register, writers in registers:
                try:
                    chain = inspect.chain(embassy, register, writers)
                except (Unreachable, Misconfigured) as error:
                    self.unreachable[embassy.name] = str(error)
                    break
                except ExclaveError as error:
                    self._problem(embassy, names.commits(register), error.id, error.why or error.what)
                    continue
                for trouble in chain.troubles:
                    self._problem(embassy, trouble.path, "commit-invalid", trouble.why)
                looked.heads[register] = chain.head
                shown[register][embassy.name] = chain
        for by_embassy in shown.values():
            longest = max(by_embassy.values(), key=lambda one: one.head, default=None)
            for name, chain in by_embassy.items():
                for theirs, ours in zip(chain.links, longest.links if longest else (), strict=False):
                    if theirs.id != ours.id:
                        why = "validly signed, and another one than elsewhere"
                        self.problems.append(Problem(name, theirs.path, "history-forked", why))
                        break
        return shown

    def listing(self, embassy: Embassy) -> list[Listed] | None:
        """Everything in the embassy, or None when it does not answer."""
        if embassy.name in self.unreachable:
            return None
        try:
            rows = list(ascending(embassy.store.list("")))
            adapter = innermost(embassy.store)
            if isinstance(adapter, Open):
                for path in adapter.strangers():
                    self._problem(
                        embassy, path, "object-malformed", "a link, a device or a name that is not ours"
                    )
            return rows  # noqa: TRY300
        except Tampered as error:
            self._problem(embassy, "", error.id, error.why or error.what)
        except ExclaveError as error:
            self.unreachable[embassy.name] = str(error)
        return None

    def embassy(
        self,
        embassy: Embassy,
        rows: list[Listed],
        shown: dict[RegisterId, dict[str, Chain]],
        pool: ThreadPoolExecutor,
        realm: str | None,
    ) -> None:
        """Check one embassy's objects."""
        here: dict[str, Expected] = {}
        elsewhere: dict[str, Expected] = {}
        commits: set[str] = set()
        links = [
            link for chains in shown.values() if embassy.name in chains for link in chains[embassy.name].links
        ]
        for link in links:
            commits.add(link.path)
            here |= wellformed.named(link.commit)
        for chains in shown.values():
            for one in chains.values():
                have = len(chains[embassy.name].links) if embassy.name in chains else 0
                for link in one.links[have:]:
                    elsewhere |= wellformed.named(link.commit)
        notes: dict[str, bytes] = {}
        self._papers_bytes = 0
        looked = self.looked[embassy.name]
        looked.objects, looked.bytes = len(rows), sum(row.size for row in rows)

        def check(row: Listed) -> None:
            if wellformed.sealed_id(row.name) is not None:
                expected = here.get(row.name) or elsewhere.get(row.name)
                self._sealed(embassy, row, expected)
                if expected is None:
                    with self._lock:
                        looked.unnamed += 1
            elif row.name in commits:
                self._count(looked, 0, row.size)  # read and verified with its chain
            else:
                self._note(embassy, row, notes, known=shown.keys())

        _bounded(pool, check, rows)
        held = {row.name for row in rows}
        for path in here.keys() - held:
            self._problem(
                embassy, path, "object-missing", "a commit that is here names it, and it is not here"
            )
        if embassy.name not in self.unreachable:
            whose = realm or next((link.commit.realm for link in links), None)
            needed = {link.commit.charter for link in links} - {FIRST}
            for path, error_id, why in paper_trail.faults(notes, whose, needed):
                self._problem(embassy, path, error_id, why)
        self.problems.sort(key=lambda one: (one.embassy, one.path))

    def _sealed(self, embassy: Embassy, row: Listed, expected: Expected | None) -> None:
        looked = self.looked[embassy.name]
        # What is longer than it may be is wrong unread: a host makes a file of exabytes out of holes.
        fits = row.size <= container.MAX_OBJECT_BYTES if expected is None else row.size == expected.size
        whole = fits and (self._sample is None or self._chance() < self._sample)
        fault = "" if fits else f"{row.size} bytes, where {_allowed(expected)}"
        if whole and embassy.name not in self.unreachable:
            digest, start = hashlib.sha256(), b""
            try:
                for at in range(0, row.size, READ_BYTES):
                    piece = embassy.store.get_range(row.name, at, min(READ_BYTES, row.size - at))
                    digest.update(piece)
                    start = start or piece[:_START_BYTES]
            except (Tampered, NotThere) as error:
                fault = error.why or error.what
            except ExclaveError as error:
                with self._lock:
                    self.unreachable[embassy.name] = str(error)
                return
            else:
                found = digest.hexdigest()
                if found != wellformed.sealed_id(row.name):
                    fault = fault or f"its SHA-256 is {found}"
                malformed = wellformed.sealed_fault(row.name, start, row.size, expected)
                if malformed and not fault:
                    self._problem(embassy, row.name, "object-malformed", malformed)
        if fault:
            self._problem(embassy, row.name, "object-damaged", fault)
        self._count(looked, row.size if whole else 0, row.size)

    def _note(
        self, embassy: Embassy, row: Listed, notes: dict[str, bytes], *, known: Iterable[RegisterId]
    ) -> None:
        """Small public objects, and all that has no business here."""
        looked = self.looked[embassy.name]
        limit = wellformed.note_limit(row.name)
        fault = "nothing of this name belongs here" if limit is None else ""
        if limit is not None:
            try:
                data = embassy.store.get(row.name, limit=limit)
            except (Tampered, NotThere) as error:
                fault = error.why or error.what
            except ExclaveError as error:
                with self._lock:
                    self.unreachable[embassy.name] = str(error)
                return
            else:
                fault = wellformed.note_fault(row.name, data)
                with self._lock:
                    if row.name.startswith(("charter/", "custody/")):
                        self._papers_bytes += len(data)
                        if self._papers_bytes <= MAX_PAPERS_BYTES:
                            notes[row.name] = data
                        else:
                            fault = fault or "there are more papers here than a realm has"
                    elif row.name.startswith("r/") and not fault:
                        looked.unnamed += 1
                        if any(row.name.startswith(names.commits(register)) for register in known):
                            looked.unnamed -= 1  # behind a bad commit, which is reported
        if fault:
            self._problem(embassy, row.name, "object-malformed", fault)
        self._count(looked, row.size if limit is not None else 0, row.size)

    def _problem(self, embassy: Embassy, path: str, error_id: str, why: str) -> None:
        with self._lock:
            self.problems.append(Problem(embassy.name, printable(path), error_id, why))

    def _count(self, looked: Looked, read: int, size: int) -> None:
        with self._lock:
            if read:
                looked.read_objects += 1
                looked.read_bytes += read
            self._done[0] += 1
            self._done[1] += size
            self._told.told(*self._done)


def _allowed(expected: Expected | None) -> str:
    return (
        f"its commit says {expected.size}" if expected else f"none has more than {container.MAX_OBJECT_BYTES}"
    )


def _bounded(pool: ThreadPoolExecutor, check: Callable[[Listed], None], rows: Sequence[Listed]) -> None:
    """Run `check` over all rows, with a bounded number of them waiting. Raises what `check` raises."""
    pending: set[Future[None]] = set()
    for row in rows:
        pending.add(pool.submit(check, row))
        if len(pending) >= QUEUED:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
    for future in pending:
        future.result()
