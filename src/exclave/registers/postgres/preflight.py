"""Whether this machine can serve a register with a given environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exclave.errors import ExclaveError
from exclave.registers.base import Finding
from exclave.registers.postgres import binaries


def missing_abroad(environment: dict[str, Any], *, programs: Path | None = None) -> list[Finding]:
    """What this machine lacks to serve a register with this environment; looked at before anything is fetched."""
    try:
        folder = binaries.find(int(environment["major"]), configured=programs)
    except ExclaveError as error:
        return [Finding(error.id, "fail", str(error), error.hint)]
    databases: list[dict[str, Any]] = environment.get("databases") or []
    extensions: list[dict[str, str]] = [row for base in databases for row in base.get("extensions", [])]
    wanted = {row["name"] for row in extensions}
    have = {path.stem for where in _extension_folders(folder) for path in where.glob("*.control")}
    found = [Finding("postgres-binaries", "ok", f"PostgreSQL {environment['major']} in {folder}")]
    lacking = sorted(wanted - have) if have else []
    if lacking:
        found.append(
            Finding(
                "extension-missing",
                "warn",
                f"extensions {', '.join(lacking)} are not installed here; what uses them will fail",
                "install their packages for this major version",
            )
        )
    return found


def _extension_folders(folder: Path) -> list[Path]:
    share = folder.parent / "share"
    debian = Path("/usr/share/postgresql") / folder.parent.name
    return [share / "extension", share / "postgresql" / "extension", debian / "extension"]
