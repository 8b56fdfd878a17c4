"""What a verb says: data to standard output, talk to standard error, one JSON document when asked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import click

from exclave.cli.progress import LIFE_SECONDS, NDJSON_SECONDS, Board, Ndjson, Ticking
from exclave.cli.writing import flush, write
from exclave.errors import Misconfigured, Refused
from exclave.printable import printable, printable_json


@dataclass(slots=True)
class Output:
    """Made by `cli.options` for one run of one verb. `mode` is the value of --progress."""

    verb: str
    as_json: bool = False
    mode: str = "auto"
    data: TextIO = field(default_factory=lambda: sys.stdout)
    talk: TextIO = field(default_factory=lambda: sys.stderr)
    _lost: OSError | None = None

    def say(self, text: str) -> None:
        """A remark for the person who waits; never part of the result."""
        if self.mode != "none":
            write(printable(text), self.talk, flush=True)

    def error(self, text: str) -> None:
        """Why it failed, in lines that hold nothing but what is visible; never kept back."""
        write(text, self.talk, flush=True)

    def line(self, text: str = "", *, colour: str | None = None) -> None:
        """A line of the result as people read it; nothing with --json. What comes from outside may stand in it."""
        shown = printable(text)
        if colour is not None and self.data.isatty():
            shown = click.style(shown, fg=colour, bold=True)
        if not self.as_json:
            self._put(shown)

    def text(self, text: str) -> None:
        """A text of several lines; nothing with --json."""
        for line in text.split("\n"):
            self.line(line.expandtabs())

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of the result under their columns; nothing with --json."""
        shown = [columns, *([printable(cell) for cell in row] for row in rows)]
        widths = [max(len(cell) for cell in cells) for cells in zip(*shown, strict=True)]
        for row in shown:
            self.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def document(self, **fields: Any) -> None:
        """The result as one JSON document, `exclave/VERB/1`; nothing without --json. Called once a run."""
        self._json(self.verb.replace(" ", "-"), fields)

    def failure(self, **fields: Any) -> None:
        """The document of a run that failed."""
        self._json("error", fields)

    def flush(self) -> OSError | None:
        """Hand over what was written of the result; what the system said when any of it was lost.

        A reader that has left (`exclave ... | head`) has lost nothing that it wanted.
        """
        lost = self._lost or flush(self.data)
        self._lost = lost
        return None if isinstance(lost, BrokenPipeError) else lost

    def _json(self, schema: str, fields: dict[str, Any]) -> None:
        if self.as_json:
            import json

            whole = {"schema": f"exclave/{schema}/1"} | fields
            self._put(printable_json(json.dumps(whole, indent=2, ensure_ascii=False)))

    def _put(self, text: str) -> None:
        if self._lost is None:
            self._lost = write(text, self.data)

    def progress(self, *, safe: str) -> Board:
        """A display of long work, for use in `with`. `safe` says what happens when the run is interrupted."""
        if self.mode == "ndjson":
            return Ndjson(self.talk, safe, every=NDJSON_SECONDS)
        if self.mode == "none" or self.as_json:
            return Ticking(self.talk, safe, every=None)
        if not self.talk.isatty():
            return Ticking(self.talk, safe, every=LIFE_SECONDS)
        from exclave.cli.terminal import Terminal

        return Terminal(self.talk, safe, every=0.2)

    def confirm(self, subject: str, sentence: str, *, yes: bool) -> None:
        """Let a person type `subject` before a sovereign or destructive act, or raise Refused."""
        if yes:
            return
        hint = f"the same with --yes, when {subject} is meant"
        if not sys.stdin.isatty():
            raise Refused(
                "not-confirmed",
                "This needs a confirmation, and there is no terminal to ask",
                why=sentence,
                hint=hint,
            )
        self.say(f"{sentence}.")
        if (
            click.prompt(f"Type {printable(subject)} to go on", default="", show_default=False, err=True)
            != subject
        ):
            raise Refused(
                "not-confirmed", "This was not confirmed: another word was typed", why=sentence, hint=hint
            )


def read_secret(prompt: str, file: str | None) -> str:
    """A secret from a file (`-` is standard input) or typed unseen; never from the command line."""
    if file is None:
        if not sys.stdin.isatty():
            raise Misconfigured(
                "no-terminal", f"{prompt} cannot be asked for", why="there is no terminal", hint="give a file"
            )
        return str(click.prompt(prompt, hide_input=True, err=True))
    with click.open_file(file) as stream:
        return str(stream.read(4096)).rstrip("\n")
