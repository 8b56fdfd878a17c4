"""Telling the story: headings, remarks, and real commands with their real output."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Sequence


class Narrator:
    """In colour on a terminal, plain elsewhere; `aside` tells it on standard error. Commands are real."""

    def __init__(self, root: Path, *, aside: bool) -> None:
        self.root, self._aside = root, aside
        self.began = time.monotonic()
        same = os.pathsep.join(filter(None, sys.path))  # the commands are of the version that tells the story
        self._environment = os.environ | {"PYTHONPATH": same, "PYTHONUNBUFFERED": "1"}
        self._environment.pop("EXCLAVE_CONFIG", None)

    def chapter(self, title: str) -> None:
        """A new act of the story, with the seconds since its beginning."""
        at = f"{time.monotonic() - self.began:4.0f} s"
        click.echo(err=self._aside)
        click.secho(f"{at}  {title}", bold=True, fg="cyan", err=self._aside)

    def say(self, text: str) -> None:
        """A remark."""
        for line in text.splitlines():
            click.echo(f"        {line}", err=self._aside)

    def good(self, text: str) -> None:
        """Something was checked and is as it must be."""
        click.secho(f"     ok {text}", fg="green", err=self._aside)

    def run(self, folder: str, *words: str, expect: int = 0, quiet: bool = False) -> str:
        """Run `exclave WORDS` in a folder of the demonstration; its standard output. Raises for another exit code.

        `quiet` shows the command only.
        """
        click.secho(
            f"  {folder}$ exclave {' '.join(_shown(word) for word in words)}", fg="yellow", err=self._aside
        )
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
                click.echo(f"    {line}", err=self._aside)
        if expect:
            click.echo(f"    (exit code {done.returncode})", err=self._aside)
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
            click.secho(f"        {text}", bold=at == 0, err=self._aside)


def _shown(word: str) -> str:
    return f'"{word}"' if " " in word else word
