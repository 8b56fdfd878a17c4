"""`exclave config`: check and show the settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import cast

import click

from exclave.cli.options import Call, standard
from exclave.cli.words import plural
from exclave.config import EmbassyConfig, RegisterConfig


@click.group("config", short_help="Check and show the settings.")
def command() -> None:
    """Check and show the settings."""


@command.command("check")
@standard
def check(call: Call) -> None:
    """Read the settings and the secrets' permissions; change nothing."""
    from exclave import wiring

    config = call.config()
    wiring.check_secrets(config)
    count = len(config.embassies)
    parts = f"{plural(len(config.registers), 'register')}, {count} {'embassy' if count == 1 else 'embassies'}"
    call.out.line(f"{config.file} is in order: {parts}.")
    call.out.document(
        file=str(config.file), registers=len(config.registers), embassies=len(config.embassies), ok=True
    )


@command.command("show")
@click.option("--effective", is_flag=True, help="With every default filled in and every path made absolute.")
@standard
def show(call: Call, effective: bool) -> None:
    """Show the settings as written or, with --effective, as they are understood. Never holds a secret."""
    config = call.config()
    if not effective:
        text = config.file.read_text(encoding="utf-8")
        call.out.text(text.rstrip("\n"))
        call.out.document(file=str(config.file), text=text)
        return
    values = dict(_flat(config, ""))
    for key, value in values.items():
        call.out.line(f"{key} = {'(not set)' if value is None else value}")
    call.out.document(effective=values)


def _flat(value: object, name: str) -> Iterator[tuple[str, str | int | bool | None]]:
    """Each setting under its dotted name; members of a list under their own name."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _flat(getattr(value, field.name), f"{name}.{field.name}" if name else field.name)
    elif isinstance(value, tuple):
        rows = cast("tuple[object, ...]", value)
        named = [row for row in rows if isinstance(row, (RegisterConfig, EmbassyConfig))]
        for row in named:
            yield from _flat(row, f"{name}.{row.name}")
        if not named and rows:
            yield name, ", ".join(str(row) for row in rows)
    else:
        yield name, value if isinstance(value, (int, bool)) or value is None else str(value)
