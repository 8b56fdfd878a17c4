"""Whether this machine can serve a register with a given environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exclave.registers.base import Finding


def lacking(environment: dict[str, Any], folder: Path) -> list[Finding]:
    """What the programs in `folder` lack to serve a register with this environment."""
    databases: list[dict[str, Any]] = environment.get("databases") or []
    extensions: list[dict[str, str]] = [row for base in databases for row in base.get("extensions", [])]
    wanted = {row["name"] for row in extensions}
    have = {path.stem for where in _extension_folders(folder) for path in where.glob("*.control")}
    missing = sorted(wanted - have) if have else []
    if not missing:
        return []
    return [
        Finding(
            "extension-missing",
            "warn",
            f"extensions {', '.join(missing)} are not installed here; what uses them will fail",
            "install their packages for this major version",
        )
    ]


def _extension_folders(folder: Path) -> list[Path]:
    share = folder.parent / "share"
    debian = Path("/usr/share/postgresql") / folder.parent.name
    return [share / "extension", share / "postgresql" / "extension", debian / "extension"]
