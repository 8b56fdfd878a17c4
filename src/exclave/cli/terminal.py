"""Bars on a terminal, drawn by Rich."""

from __future__ import annotations

from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from exclave.cli.progress import Ticking


class Terminal(Ticking):
    """A bar a task, gone when the work is done."""

    def __init__(self, talk: TextIO, safe: str, *, every: float) -> None:
        super().__init__(talk, safe, every=every)
        columns = (
            SpinnerColumn(finished_text="\u2713"),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
        )
        self._bars = Progress(*columns, console=Console(file=talk), transient=True)
        self._rows = dict[int, TaskID]()

    def __enter__(self) -> Self:
        self._bars.start()
        self._bars.console.print(self.safe, style="dim")
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.show()
        self._bars.stop()

    def show(self) -> None:
        """See `Ticking.show`."""
        for at, task in enumerate(self.tasks):
            if at not in self._rows:
                self._rows[at] = self._bars.add_task(task.name)
            total = (task.done or 1) if task.finished else (task.total or None)
            done = (task.done or 1) if task.finished else min(task.done, task.total or task.done)
            self._bars.update(self._rows[at], description=task.sentence(), total=total, completed=done)
