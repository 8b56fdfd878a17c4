"""What a database needs around it to live: told in the manifest, compared after a restore."""

from __future__ import annotations

import grp
import os
import pwd
import sqlite3
from contextlib import suppress
from typing import Any

from exclave.crypto.hashing import sha256

_PRAGMAS = ("page_size", "page_count", "encoding", "user_version", "application_id", "auto_vacuum")


def describe(connection: sqlite3.Connection, *, wal: bool) -> dict[str, Any]:
    """Settings and schema of a database. `wal` because a copy is read without its journal mode.

    The other journal modes are not a property of the file; they are one word here.
    """
    told: dict[str, Any] = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PRAGMAS}
    rows = connection.execute(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema ORDER BY type, name, tbl_name"
    ).fetchall()
    schema = "\n".join("\t".join(row) for row in rows).encode("utf-8", "surrogatepass")
    return {
        "engine": "sqlite",
        "sqlite_version": sqlite3.sqlite_version,
        "journal_mode": "wal" if wal else "rollback",
        "schema_sha256": sha256(schema).hex(),
        "tables": sum(row[0] == "table" for row in rows),
        **told,
    }


def owners(found: os.stat_result, folder: os.stat_result) -> dict[str, dict[str, str]]:
    """Names of the users and groups that own the file and its folder; unknown ones are left out."""
    users: dict[str, str] = {}
    groups: dict[str, str] = {}
    for about in (found, folder):
        with suppress(KeyError):
            users[str(about.st_uid)] = pwd.getpwuid(about.st_uid).pw_name
        with suppress(KeyError):
            groups[str(about.st_gid)] = grp.getgrgid(about.st_gid).gr_name
    return {"users": users, "groups": groups}
