"""Writing `exclave.toml`: a commented first one, then additions that keep every comment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exclave import config
from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import AoT, Table

_HEAD = """\
# Settings of one party of a realm. Unknown keys are refused. Relative paths are relative to this file.
# Secrets are never written here: they are files of mode 0600, named here by path.

# What this party remembers between runs. Safe to lose (it is rebuilt from the embassies), so no need to back it up.
state = "state"

[realm]
name = {name}
# Pins the realm: SHA-256 of its first charter. The ceremony writes it; carry it to every other party by hand.
{pin}
charter = "charter"
annex = "charter/annex.json"
"""
_HOME = """
[home]
# Write keys: they seal and recognise, they cannot open. Mode 0700, owned by whom exclave runs as.
keys = "keys"
# A snapshot counts once this many embassies hold it durably; one that lags catches up by itself.
copies = {copies}
# How long to wait for an embassy before going on without it.
patience_seconds = 60
"""
_ACTIVATION = """
[activation]
# Where registers are rebuilt and started when the custodians have agreed to it.
place = "activated"
# Folder of PostgreSQL's programs (the one with `postgres` in it). Without it: what is found on this machine.
# postgres = "/usr/lib/postgresql/17/bin"
# Services answer on this machine only; what the world sees stands in front of them. 0 takes a free port.
postgres_port = 0
documents_port = 0
"""
_TAIL = """
# What follows is written by `exclave register add` and `exclave embassy add`; edit it as you like.
"""


def template(name: str, *, home: bool, copies: int = 2, realm_id: str = "") -> str:
    """A new settings file, for home or for a party that only restores and activates."""
    head = _HEAD.format(name=_quoted(name), pin=f"id = {_quoted(realm_id)}" if realm_id else '# id = ""')
    return head + (_HOME.format(copies=copies) if home else "") + _ACTIVATION + _TAIL


def create(file: Path, text: str) -> None:
    """Write a first settings file, durably. Raises Misconfigured when there is one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError as error:
        hint = f"edit {file}, or choose another folder"
        raise Misconfigured(
            "settings-exist", f"{file} exists", why="it is not overwritten", hint=hint
        ) from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def add(file: Path, table: str, values: dict[str, str | int | bool | list[str]]) -> None:
    """Add one `[[table]]`, keeping every comment. Raises Misconfigured, and changes nothing, when it does not fit."""
    import tomlkit

    document = _parse(file)
    row = tomlkit.table()
    for key, value in values.items():
        row.add(key, value)
    row.add(tomlkit.nl())
    rows = cast("AoT | None", document.get(table))  # pyright: ignore[reportUnknownMemberType]
    if rows is None:
        rows = tomlkit.aot()
        document.append(table, rows)
    rows.append(row)  # pyright: ignore[reportUnknownMemberType]
    _replace(file, document)


def pin_realm(file: Path, realm_id: str) -> None:
    """Write the realm's id (64 hex digits) into the settings. Raises Misconfigured when another one is pinned."""
    document = _parse(file)
    pinned = config.load(file).realm.id
    if pinned not in (None, realm_id):
        why = f"it is pinned to {pinned}, not to {realm_id}"
        raise Misconfigured(
            "other-realm", f"{file} belongs to another realm", why=why, hint="exclave config show"
        )
    cast("Table", document["realm"])["id"] = realm_id
    _replace(file, document)


def _parse(file: Path) -> TOMLDocument:
    import tomlkit

    config.load(file)
    return tomlkit.parse(file.read_text(encoding="utf-8"))


def _replace(file: Path, document: TOMLDocument) -> None:
    import tomlkit

    text = tomlkit.dumps(document)
    config.parse(text, file.absolute())
    draft = file.with_name(f".{file.name}.new")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.chmod(file.stat().st_mode & 0o777)
    draft.replace(file)


def _quoted(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
