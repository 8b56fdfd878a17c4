"""`exclave register`: what is protected."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import cast

import click

from exclave.cli.configfile import add as write
from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.config import REGISTER_KINDS, Config, RegisterConfig
from exclave.errors import Misconfigured


@click.group("register", short_help="Add, list and show what is protected.")
def command() -> None:
    """Add, list and show what is protected."""


@command.command("add")
@click.argument("name")
@click.argument("source", required=False)
@click.option(
    "--kind", type=click.Choice(REGISTER_KINDS), help="Found from SOURCE when it is a file or a folder."
)
@click.option(
    "--conninfo", default="", help="For postgres: host, port and user, in libpq's words; no password."
)
@click.option("--password-file", type=click.Path(path_type=Path), help="For postgres: a file of mode 0600.")
@click.option("--exclude", multiple=True, help="For files: a pattern to leave out. May be repeated.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@standard
def add(
    call: Call,
    name: str,
    source: str | None,
    kind: str | None,
    conninfo: str,
    password_file: Path | None,
    exclude: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Protect SOURCE (a file or folder), or with --conninfo a PostgreSQL cluster, under NAME."""
    call.config().at_home()
    kind = kind or _kind(source, conninfo)
    row: dict[str, str | int | bool | list[str]] = {"name": name, "id": secrets.token_hex(16), "kind": kind}
    if kind == "postgres":
        row["conninfo"] = conninfo
        if password_file is not None:
            row["password_file"] = str(password_file.absolute())
    elif source is None:
        raise Misconfigured(
            "no-source",
            f"Register {name} has no source",
            why=f"kind {kind} reads a path",
            hint="name the path",
        )
    else:
        row["path"] = os.path.abspath(source)
        if exclude:
            row["exclude"] = list(exclude)
    if dry_run:
        call.out.line(f"would add register {name} ({kind}) to {call.file}")
    else:
        write(call.file, "register", row)
        call.out.line(f"register {name} ({kind}) is added as {row['id']}.")
        call.forget()
        call.out.line(f"Next: {_following(call.config())}")
    call.out.document(register=row, dry_run=dry_run)


@command.command("list")
@standard
def list_(call: Call) -> None:
    """List the registers of this home."""
    rows = call.config().registers
    call.out.table(("register", "kind", "source", "id"), [(r.name, r.kind, _source(r), r.id) for r in rows])
    call.out.document(registers=[_fields(row) for row in rows])


@command.command("show")
@click.argument("name")
@standard
def show(call: Call, name: str) -> None:
    """Show one register, and ask its source how it is."""
    from exclave import wiring

    row = call.config().register(name)
    source = wiring.register(call.config(), name)
    findings, count = source.doctor(), source.size_hint()
    for key, value in _fields(row).items():
        call.out.line(f"{key + ':':<15} {_said(value)}")
    call.out.line(f"{'size:':<15} {f'about {size(count)}' if count else 'unknown'}")
    for finding in findings:
        call.out.line(
            f"{finding.level:<5} {finding.text}" + (f"  Next: {finding.hint}" if finding.hint else "")
        )
    call.out.document(
        register=_fields(row),
        size_bytes=count or None,
        findings=[{"id": f.id, "level": f.level, "text": f.text, "next": f.hint} for f in findings],
    )


def _kind(source: str | None, conninfo: str) -> str:
    if conninfo:
        return "postgres"
    if source is not None and Path(source).is_dir():
        if (Path(source) / "PG_VERSION").exists():
            hint = "the same with --conninfo, which reads it through its server"
            raise Misconfigured(
                "looks-like-postgres",
                f"{source} is a PostgreSQL cluster",
                why="its files alone are not consistent",
                hint=hint,
            )
        return "files"
    if source is not None and Path(source).is_file():
        with Path(source).open("rb") as stream:
            if stream.read(16) == b"SQLite format 3\0":
                return "sqlite"
    raise Misconfigured(
        "kind-unknown",
        "It cannot be seen what kind of register this is",
        why=_unlike(source),
        hint="give --kind, or --conninfo for PostgreSQL",
    )


def _unlike(source: str | None) -> str:
    if source is None:
        return "no source is named"
    return (
        f"{source} is no folder and no SQLite file" if Path(source).exists() else f"{source} does not exist"
    )


def _following(config: Config) -> str:
    """The command that brings this home nearer to its first snapshot."""
    if config.realm.id is not None:
        return "exclave ceremony --as FOLDER, which makes the key that it is sealed with"
    if not config.embassies:
        return "exclave embassy add --help, for the places abroad"
    return "exclave ceremony --help, which makes the key that it is sealed with"


def _source(row: RegisterConfig) -> str:
    return row.conninfo or str(row.path)


def _said(value: object) -> str:
    """A value as a person reads it; a dash for none."""
    text = (
        ", ".join(str(one) for one in cast("list[object]", value))
        if isinstance(value, list)
        else str(value or "")
    )
    return text or "-"


def _fields(row: RegisterConfig) -> dict[str, object]:
    return {
        "name": row.name,
        "id": row.id,
        "kind": row.kind,
        "source": _source(row),
        "exclude": list(row.exclude),
        "password_file": str(row.password_file) if row.password_file else None,
    }
