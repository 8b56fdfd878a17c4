"""`exclave init`: a commented settings file, this party's folders, and home's writer key."""

from __future__ import annotations

import os
from pathlib import Path

import click

from exclave.cli.configfile import create, template
from exclave.cli.options import Call, standard
from exclave.config import parse


@click.command("init", short_help="Write a commented exclave.toml.")
@click.option("--realm", "realm", default="", help="Name of the owner; the folder's name by default.")
@click.option(
    "--copies", default=2, show_default=True, help="Embassies that must hold a snapshot before it counts."
)
@click.option(
    "--embassy", is_flag=True, help="For a party abroad, which restores and activates but protects nothing."
)
@click.option("--realm-id", default="", metavar="HEX", help="Pin the realm that the ceremony made.")
@click.option(
    "--annex",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The realm's annex, handed over by home: copied, and never shown to a host.",
)
@click.option("--dry-run", is_flag=True, help="Print the settings and write nothing.")
@standard
def command(
    call: Call, realm: str, copies: int, embassy: bool, realm_id: str, annex: Path | None, dry_run: bool
) -> None:
    """Write a commented exclave.toml in this folder, and at home make the writer's signing key."""
    file = call.file.absolute()
    text = template(realm or file.parent.name, home=not embassy, copies=copies, realm_id=realm_id)
    parse(text, file)
    if dry_run:
        call.out.text(text)
        call.out.document(dry_run=True, file=str(file), text=text)
        return
    create(file, text)
    config = call.config()
    config.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if annex is not None:
        config.realm.annex.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _keep(config.realm.annex, annex.read_bytes())
    seed: Path | None = None
    if config.home is not None:
        config.home.keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        seed = config.home.keys / "writer.seed"
        _make_seed(seed)
    call.out.line(f"{file} is written.")
    following = "exclave embassy add --help" if embassy else "exclave register add --help"
    if seed is not None:
        call.out.line(f"{seed} signs what this home writes: mode 0600, and no copy of it is needed.")
    call.out.line(f"Next: {following}")
    call.out.document(file=str(file), writer_key=str(seed) if seed else None, next=following)


def _make_seed(path: Path) -> None:
    from exclave.crypto.sign import generate_seed

    if not path.exists():
        _keep(path, generate_seed())


def _keep(path: Path, data: bytes) -> None:
    """A new file that only its owner reads; durable on return."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
