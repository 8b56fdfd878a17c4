"""What every verb has: --config, --json, --progress; and the call that it gets from them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from exclave.cli.output import Output
from exclave.config import FILE_NAME, Config, load


@dataclass(slots=True)
class Call:
    """One run of one verb: where it talks, and the settings it runs under (read when first asked for)."""

    file: Path = field(default_factory=lambda: Path(FILE_NAME))
    out: Output = field(default_factory=lambda: Output("exclave"))
    _config: Config | None = None

    def config(self) -> Config:
        """The checked settings. Raises Misconfigured."""
        if self._config is None:
            self._config = load(self.file)
        return self._config

    def forget(self) -> None:
        """The file was changed: read it again next time."""
        self._config = None


def standard(verb: Callable[..., int | None]) -> Callable[..., int | None]:
    """Give a verb the standard options and, as first argument, its `Call`. It returns its exit code, or None for 0."""

    @click.option(
        "--config",
        "-c",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="EXCLAVE_CONFIG",
        default=FILE_NAME,
        show_default=True,
        help="Settings of this party.",
    )
    @click.option(
        "--json", "as_json", is_flag=True, help="The result as one JSON document on standard output."
    )
    @click.option(
        "--progress",
        "mode",
        type=click.Choice(["auto", "ndjson", "none"]),
        default="auto",
        help="How to show long work on standard error.",
    )
    @click.pass_context
    @functools.wraps(verb)
    def run(context: click.Context, /, file: Path, as_json: bool, mode: str, **options: Any) -> int | None:
        call = context.ensure_object(Call)
        call.file = file
        name = context.command_path.partition(" ")[2] or context.command_path
        call.out = Output(name, as_json=as_json, mode=mode)
        return verb(call, **options)

    return run
