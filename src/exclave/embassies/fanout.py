"""Fan-out: every object to every embassy, at the speed of those that keep up.

One writer thread an embassy takes from a bounded queue. An embassy that fails, or for which the others have waited too
long, falls behind for the rest of the run; `embassies.copy` brings it up to date later, from the others.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from exclave.embassies.embassy import Embassy
from exclave.errors import ExclaveError, Refused, Unreachable
from exclave.types import Buffer

_LOOK_SECONDS = 1.0  # how often a waiting caller looks around, at least
_LEAVE_SECONDS = 5.0  # an object that is then still under way is dropped; nobody counts on it


class _Job:
    """An object on its way. `waiting` counts the embassies that still need its buffer."""

    __slots__ = ("data", "done", "name", "waiting")

    def __init__(self, name: str, data: Buffer, done: Callable[[], None] | None) -> None:
        self.name = name
        self.data: Buffer | None = data
        self.done = done
        self.waiting = 0


class _Line:
    """One embassy's queue and state. Guarded by the fan-out's condition."""

    __slots__ = ("behind", "busy", "cost", "embassy", "jobs", "refused", "thread")

    def __init__(self, embassy: Embassy) -> None:
        self.embassy = embassy
        self.jobs: deque[_Job] = deque()
        self.busy = False
        self.behind: str | None = None
        self.refused: Refused | None = None  # the last conflict, kept for `publish`
        self.cost = (
            0.0  # seconds for which we waited for it while enough others were ready, since it was last idle
        )
        self.thread: threading.Thread | None = None

    @property
    def load(self) -> int:
        return len(self.jobs) + self.busy


class Fanout:
    """Use as a context manager, from one thread at a time.

    While `copies` others are ready, one may cost `patience_seconds` of waiting, counted anew whenever it is idle.
    `queue_objects` may be under way at each. `done` of an object is called once, in any thread, when no
    embassy needs its buffer any more. An embassy that hangs keeps the buffer of the one object that it is writing
    until its store gives up, so callers that reuse buffers need `len(embassies) - copies` more than they fill.
    """

    def __init__(
        self,
        embassies: Sequence[Embassy],
        *,
        copies: int,
        patience_seconds: float = 60.0,
        queue_objects: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if copies < 1 or queue_objects < 1:
            raise ValueError("at least one copy, at least one object under way")
        self._copies = copies
        self._patience = patience_seconds
        self._queue = queue_objects
        self._clock = clock
        self._changed = threading.Condition()
        self._closing = False
        self._bug: Exception | None = None
        self._lines = {embassy.name: _Line(embassy) for embassy in embassies}
        if len(self._lines) != len(embassies):
            raise ValueError("two embassies of one name")

    @property
    def behind(self) -> dict[str, str]:
        """Embassies that fell behind in this run, and why."""
        with self._changed:
            return {name: line.behind for name, line in self._lines.items() if line.behind is not None}

    def __enter__(self) -> Self:
        self._require_copies()
        for name, line in self._lines.items():
            # Daemons: a put that hangs in the kernel must not keep the process from ending.
            line.thread = threading.Thread(
                target=self._write, args=(line,), name=f"embassy {name}", daemon=True
            )
            line.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drops what is still queued; what an embassy is just writing is waited for, but not for long."""
        dropped: list[_Job] = []
        with self._changed:
            self._closing = True
            for line in self._lines.values():
                dropped += self._drop_queue(line)
            self._changed.notify_all()
        _release(dropped)
        deadline = self._clock() + min(self._patience, _LEAVE_SECONDS)
        for line in self._lines.values():
            if line.thread is not None and line.behind is None:
                line.thread.join(max(0.0, deadline - self._clock()))

    def put(self, name: str, data: Buffer, done: Callable[[], None] | None) -> None:
        """Hand an object to every embassy in step; blocks while one that others may not leave behind is full.

        `data` must not change until `done`. Raises Unreachable("copies-missing").
        """
        job = _Job(name, data, done)
        self._wait_until(lambda line: line.load < self._queue)
        with self._changed:
            lines = self._in_step()
            job.waiting = len(lines)
            for line in lines:
                line.jobs.append(job)
            self._changed.notify_all()

    def settled(self) -> frozenset[str]:
        """Blocks until every embassy still in step holds all that was put, durably; their names.

        Raises Unreachable("copies-missing").
        """
        self._wait_until(lambda line: line.load == 0)
        with self._changed:
            return frozenset(line.embassy.name for line in self._in_step())

    def publish(self, name: str, note: bytes) -> frozenset[str]:
        """Create a commit wherever everything before it is held; the names of the embassies that have it now.

        First at one embassy alone, the same for every writer: two writers of one number meet there, and the loser
        writes nowhere else. Raises Refused("writer-fenced"), Unreachable("copies-missing").
        """
        self.settled()
        order = sorted(self._lines)
        while order and self._place(name, note, [order.pop(0)]) == 0:
            pass  # that embassy is behind: the next one decides
        self._place(name, note, order)
        return self.settled()

    def _place(self, name: str, note: bytes, names: Sequence[str]) -> int:
        """Create at these embassies, as far as they are in step; at how many it is now."""
        with self._changed:
            lines = [self._lines[one] for one in names if self._lines[one].behind is None]
            job = _Job(name, note, None)
            job.waiting = len(lines)
            for line in lines:
                line.refused = None
                line.jobs.append(job)
            self._changed.notify_all()
        try:
            self._wait_until(lambda line: line.load == 0)
        finally:
            # Also when too few embassies are left: that another writer was here is the reason to tell.
            refused = next((line for line in lines if line.refused is not None), None)
            if refused is not None:
                raise _fenced(name, refused.embassy.name) from refused.refused
        with self._changed:
            return sum(line.behind is None for line in lines)

    def _wait_until(self, ready: Callable[[_Line], bool]) -> None:
        """Wait until all embassies in step are `ready`, leaving behind those that cost too much patience."""
        dropped: list[_Job] = []
        try:
            with self._changed:
                while True:
                    self._check()
                    late = [line for line in self._in_step() if not ready(line)]
                    if not late:
                        return
                    charged = late if len(self._in_step()) - len(late) >= self._copies else []
                    for line in charged:
                        if line.cost >= self._patience:
                            why = f"it did not keep up: the others waited {self._patience:g} seconds for it"
                            dropped += self._fall_behind(line, why)
                    left = [self._patience - line.cost for line in charged if line.behind is None]
                    if not charged or left:
                        began = self._clock()
                        self._changed.wait(min([_LOOK_SECONDS, *left]))
                        for line in charged:
                            line.cost += self._clock() - began
        finally:
            _release(dropped)

    def _write(self, line: _Line) -> None:
        """The writer thread of one embassy."""
        while True:
            with self._changed:
                while not line.jobs and not self._closing:
                    self._changed.wait()
                if not line.jobs:
                    return
                job = line.jobs.popleft()
                data = job.data
                line.busy = True
            dropped: list[_Job] = [job]
            why: str | None = None
            try:
                if data is not None:
                    line.embassy.store.put(job.name, data)
            except Refused as error:
                why, line.refused = str(error), error
            except ExclaveError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 -- a bug of ours; the caller raises it
                why, self._bug = f"internal error: {error!r}", error
            del data
            with self._changed:
                line.busy = False
                if line.load == 0:
                    line.cost = 0.0
                if why is not None and line.behind is None:
                    dropped += self._fall_behind(line, why)
            try:
                _release(dropped)
            except Exception as error:  # noqa: BLE001 -- in foreign code; this thread must go on, the caller raises it
                self._bug = error
            with self._changed:
                self._changed.notify_all()

    def _in_step(self) -> list[_Line]:
        return [line for line in self._lines.values() if line.behind is None]

    def _fall_behind(self, line: _Line, why: str) -> list[_Job]:
        line.behind = why
        return self._drop_queue(line)

    def _drop_queue(self, line: _Line) -> list[_Job]:
        jobs = list(line.jobs)
        line.jobs.clear()
        return jobs

    def _check(self) -> None:
        if self._bug is not None:
            raise self._bug
        self._require_copies()

    def _require_copies(self) -> None:
        left = self._in_step()
        if len(left) >= self._copies:
            return
        reasons = [f"{name}: {line.behind}" for name, line in self._lines.items() if line.behind is not None]
        raise Unreachable(
            "copies-missing",
            f"Only {len(left)} of the {self._copies} embassies needed can hold this",
            why="\n".join(reasons) or f"only {len(self._lines)} are configured",
            hint="exclave doctor",
        )


_counting = threading.Lock()


def _release(jobs: list[_Job]) -> None:
    """One embassy less needs each of these. Called without the fan-out's condition: `done` is foreign code."""
    for job in jobs:
        with _counting:
            job.waiting -= 1
            last = job.waiting == 0
            if last:
                job.data = None
        if last and job.done is not None:
            job.done()
    jobs.clear()


def _fenced(name: str, embassy: str) -> Refused:
    return Refused(
        "writer-fenced",
        "Another writer has made this register's next snapshot",
        why=f"{embassy} already holds another commit as {name}; this run's snapshot does not count",
        hint="stop the other writer of this register, then: exclave protect",
    )
