"""Telling the story: headings, remarks, and real commands with their real output."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence


class Narrator:
    """In colour on a terminal, plain elsewhere; `aside` tells it on standard error. Commands are real."""

    def __init__(self, root: Path, *, aside: bool) -> None:
        self.root = root
        self.began = time.monotonic()
        self._console = Console(stderr=aside, highlight=False, soft_wrap=True, markup=False, emoji=False)
        same = os.pathsep.join(filter(None, sys.path))  # the commands are of the version that tells the story
        self._environment = os.environ | {"PYTHONPATH": same, "PYTHONUNBUFFERED": "1"}
        self._environment.pop("EXCLAVE_CONFIG", None)

    def chapter(self, title: str) -> None:
        """A new act of the story, with the seconds since its beginning."""
        self._console.print(f"\n{time.monotonic() - self.began:4.0f} s  {title}", style="bold cyan")

    def say(self, text: str) -> None:
        """A remark."""
        self._console.print(f"        {text}")

    def good(self, text: str) -> None:
        """Something was checked and is as it must be."""
        self._console.print(f"     ok {text}", style="green")

    def run(self, folder: str, *words: str, expect: int = 0, quiet: bool = False) -> str:
        """Run `exclave WORDS` in a folder of the demonstration; its standard output. Raises for another exit code.

        `quiet` shows the command only.
        """
        self._console.print(f"  {folder}$ exclave {' '.join(map(_shown, words))}", style="yellow")
        done = subprocess.run(
            [sys.executable, "-m", "exclave", *words],
            cwd=self.root / folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if not quiet or done.returncode != expect:
            for line in done.stdout.splitlines():
                self._console.print(f"    {line}")
        if expect:
            self._console.print(f"    (exit code {done.returncode})", style="bold")
        if done.returncode != expect:
            raise Misconfigured(
                "demo-failed",
                f"The demonstration stopped at `exclave {words[0]}`",
                why=f"exit code {done.returncode} where {expect} was expected; its own words are above",
                hint=f"look into {self.root}, then exclave demo --clean",
            )
        return done.stdout

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Rows in columns; the first is the heading."""
        widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
        for at, row in enumerate(rows):
            text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            self._console.print(f"        {text}", style="bold" if at == 0 else None)


def _shown(word: str) -> str:
    return f'"{word}"' if " " in word else word
