"""`exclave version`: which version this is and what it runs on."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from exclave.cli.options import Call, standard


def facts() -> dict[str, str]:
    """What a supporter asks first."""
    try:
        version = metadata.version("exclave")
    except metadata.PackageNotFoundError:
        version = "not installed (run from its source)"
    rows = {"exclave": version, "python": platform.python_version(), "system": platform.platform()}
    for package in ("cryptography", "blake3", "zstandard", "obstore", "psycopg"):
        try:
            rows[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            rows[package] = "absent"
    return rows


@click.command("version", short_help="Say which version this is.")
@standard
def command(call: Call) -> None:
    """Say which version this is and what it runs on."""
    rows = facts()
    call.out.table(("part", "version"), list(rows.items()))
    call.out.document(**rows)
