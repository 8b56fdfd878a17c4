"""Displays of long work: a Rich board, NDJSON lines, or a line of life every 30 seconds without a terminal."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from exclave.cli.writing import write
from exclave.printable import printable

if TYPE_CHECKING:
    from types import TracebackType

LIFE_SECONDS = 30.0
NDJSON_SECONDS = 1.0


@dataclass(slots=True)
class Task:
    """One thing that is worked at. Its methods may be called from any one thread, thousands of times a second."""

    name: str
    what: str = ""
    total: int = 0  # bytes; 0 when nobody knows
    done: int = 0  # bytes
    files: int = 0
    since: float = 0.0
    finished: bool = False

    def phase(self, what: str, total: int = 0) -> None:
        """Begin the next phase: its name, and the bytes it will probably take."""
        self.what, self.total, self.done, self.files, self.since = what, total, 0, 0, time.monotonic()

    def told(self, files: int, done: int) -> None:
        """So many files and bytes of this phase so far. Fits `registers.base.Told`."""
        self.files, self.done = files, done

    def finish(self, what: str = "done") -> None:
        """Nothing more to come."""
        self.what, self.finished = what, True

    def rate(self) -> float:
        """Bytes per second of this phase."""
        return self.done / max(time.monotonic() - self.since, 0.001) if self.since else 0.0

    def eta_seconds(self) -> int | None:
        """Seconds to the end of this phase, when that can be said."""
        rate = self.rate()
        return None if not self.total or not rate else max(0, round((self.total - self.done) / rate))

    def sentence(self) -> str:
        """`land: read and seal, 12.0 of 40.1 MB, 31.2 MB/s, 1 s left`."""
        if self.finished or not (self.done or self.total):
            return printable(f"{self.name}: {self.what}")
        whole = f" of {size(self.total)}" if self.total else ""
        eta = self.eta_seconds()
        left = "" if eta is None else f", {span(eta)} left"
        said = f"{self.name}: {self.what}, {size(self.done)}{whole}, {size(self.rate())}/s{left}"
        return printable(said)


class Board(Protocol):
    """A display. Enter it, take a task a thing, leave it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def task(self, name: str) -> Task:
        """A new thing to show."""
        ...


class Ticking:
    """Without a terminal: every 30 seconds one line that says that work goes on."""

    def __init__(self, talk: TextIO, safe: str, *, every: float | None) -> None:
        self.talk, self.safe, self.tasks = talk, safe, list[Task]()
        self._every, self._over = every, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def task(self, name: str) -> Task:
        """See `Board.task`."""
        task = Task(name, since=time.monotonic())
        self.tasks.append(task)
        return task

    def show(self) -> None:
        """One beat of the display."""
        for task in self.tasks:
            if not task.finished:
                write(f"{task.sentence()} ({self.safe})", self.talk, flush=True)

    def __enter__(self) -> Self:
        if self._every is not None:
            self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        if self._every is not None:
            self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._every):
            self.show()


class Ndjson(Ticking):
    """One JSON object a line and task, each second and at the end."""

    def show(self) -> None:
        """See `Ticking.show`."""
        import json

        for task in self.tasks:
            row = {
                "schema": "exclave/progress/1",
                "task": task.name,
                "phase": task.what,
                "files": task.files,
                "bytes": task.done,
                "total_bytes": task.total or None,
                "bytes_per_second": round(task.rate()),
                "eta_seconds": task.eta_seconds(),
                "finished": task.finished,
                "safe": self.safe,
            }
            write(json.dumps(row), self.talk, flush=True)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.show()


def size(count: float) -> str:
    """`31.2 MB`: decimal units, as disks and lines are sold."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def span(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 days`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86_400:.0f} days"
