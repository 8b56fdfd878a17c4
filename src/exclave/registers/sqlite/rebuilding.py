"""A restored SQLite database: checked to the last page before anyone opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exclave.errors import Tampered
from exclave.registers.base import Finding, Rebuilt
from exclave.registers.sqlite import checking, connecting, describing

_COMPARED = ("page_size", "page_count", "encoding", "user_version", "application_id", "schema_sha256")
_SIDE_FILES = ("-wal", "-shm", "-journal")
_MAX_TOLD = 5


class SqliteRebuilder:
    """Runs SQLite's own checks. The journal mode needs no care: WAL is written in the file, the rest is not kept."""

    def finish(self, place: Path, environment: dict[str, Any]) -> Rebuilt:
        """Check the one database in folder `place`. Leaves no journal files. Raises Tampered, Refused."""
        path = _only_file(place)
        with path.open("rb") as file:
            head = checking.header(file.read(checking.HEADER_BYTES))
        if head is None:
            raise _failed(path, "it is not a SQLite database")
        try:
            with connecting.at_rest(path) as database:
                lines = [str(row[0]) for row in database.execute(f"PRAGMA integrity_check({_MAX_TOLD})")]
                if lines != ["ok"]:
                    raise _failed(path, "; ".join(lines))
                orphans = database.execute("SELECT count(*) FROM pragma_foreign_key_check").fetchone()[0]
                found = describing.describe(database, wal=head.wal)
        except Tampered as error:
            raise _failed(path, error.why) from error
        for name in _COMPARED:
            if name in environment and environment[name] != found[name]:
                raise _failed(path, f"{name} is {found[name]} and was {environment[name]}")
        checks = [Finding("sqlite-integrity", "ok", f"integrity_check of {path.name}: ok")]
        if orphans:
            checks.append(
                Finding(
                    "sqlite-foreign-keys",
                    "warn",
                    f"{orphans} rows point to rows that do not exist (as they did at home)",
                    f"sqlite3 '{path}' 'PRAGMA foreign_key_check'",
                )
            )
        mode = "wal" if head.wal else "rollback"
        checks.append(Finding("sqlite-journal-mode", "ok", f"journal mode: {mode}"))
        return Rebuilt(place, checks)


def _only_file(place: Path) -> Path:
    """The database. Journals cannot be among what was captured; left by a foreign hand they would be replayed."""
    try:
        names = sorted(entry.name for entry in place.iterdir())
    except OSError as error:
        raise connecting.refuse_place(error.strerror or str(error)) from error
    databases = [name for name in names if not name.endswith(_SIDE_FILES)] or names
    if len(databases) != 1 or not (place / databases[0]).is_file():
        raise connecting.refuse_place(f"it has {len(names)} entries")
    path = place / databases[0]
    for suffix in _SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path


def _failed(path: Path, why: str) -> Tampered:
    hint = "activate an earlier snapshot: exclave snapshots"
    return Tampered(
        "sqlite-check-failed", f"The restored database {path.name} fails its check", why=why, hint=hint
    )
