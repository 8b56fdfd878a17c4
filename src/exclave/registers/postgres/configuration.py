"""Replaces the configuration of a restored data directory by one that is safe away from home."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from exclave.registers.base import Finding
from exclave.registers.postgres import settings

_HOME = ".home"  # suffix under which home's own version of a file stays beside ours
_ACCESS = "local all all peer\nlocal all all scram-sha-256\n"
_CONTROL = re.compile(r"^(max_[a-z_]+?)(?:_xact)? setting:\s+(\d+)$", re.MULTILINE)


def replace(place: Path, environment: dict[str, Any], folder: Path | None) -> list[Finding]:
    """Write our configuration and access rules in place of home's; what that leaves out. `folder`: the programs."""
    home = _home_settings(place)
    captured: dict[str, str] = environment.get("settings") or {}
    home.update({name.lower(): value for name, value in captured.items()})
    stays, dropped = settings.kept(home, zones=_zones(folder))
    for name, least in _needed(place, folder).items():
        stays[name] = str(max(least, int(stays.get(name, "0"))))
    findings = _memory(stays, block_bytes=int(environment.get("block_bytes") or 8192))
    libraries = environment.get("shared_preload_libraries") or home.get("shared_preload_libraries", "")
    present, missing = _libraries(libraries, folder)
    stays |= settings.IMPOSED
    if present:
        stays["shared_preload_libraries"] = ", ".join(present)
    stays["exclave.superuser"] = _superuser(environment)
    if missing:
        findings.append(
            Finding(
                "library-missing",
                "warn",
                f"shared_preload_libraries: {', '.join(missing)} not installed here, left out",
                "install the extension's package for this major version, then restart",
            )
        )
    noted = sorted(set(dropped) - settings.IMPOSED.keys() - {"shared_preload_libraries"})
    if noted:
        findings.append(Finding("settings-left-out", "ok", f"home's {', '.join(noted)} do not apply here"))
    _write(place / "postgresql.conf", _PREFACE + settings.written(stays))
    _write(place / "postgresql.auto.conf", "# Settings made by ALTER SYSTEM come here.\n")
    _write(place / "pg_hba.conf", _ACCESS)
    _write(place / "pg_ident.conf", "")
    return findings


def _needed(place: Path, folder: Path | None) -> dict[str, int]:
    """What the control file says of home's sizes: with less of any, recovery refuses to go on."""
    program = folder / "pg_controldata" if folder else None
    if program is None or not program.exists():
        return {}
    done = subprocess.run(
        [program, place],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), "LC_ALL": "C"},
    )
    found = {match[1]: int(match[2]) for match in _CONTROL.finditer(done.stdout)}
    return {name: value for name, value in found.items() if name in settings.AT_LEAST}


def _zones(folder: Path | None) -> Path:
    """Where the server will look for time zones: its own folder, else the system's."""
    own = folder.parent / "share" / "timezone" if folder else None
    return own if own is not None and own.is_dir() else Path("/usr/share/zoneinfo")


_PREFACE = (
    "# Written by exclave when this cluster was rebuilt. Home's files stay beside it, with the suffix .home.\n"
    "# Nothing listens on the network, nothing is archived or sent to a standby, until somebody decides so.\n"
)


def _home_settings(place: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("postgresql.conf", "postgresql.auto.conf"):
        path = place / (name + _HOME)
        if not path.exists():
            path = place / name
        if path.exists():
            found |= settings.parse(path.read_text(encoding="utf-8", errors="replace"))
    return found


def _write(path: Path, text: str) -> None:
    kept = path.with_name(path.name + _HOME)
    if path.exists() and not kept.exists():
        path.rename(kept)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def _memory(stays: dict[str, str], *, block_bytes: int) -> list[Finding]:
    """Home's machine may have been larger than this one."""
    wanted = settings.quantity(stays.get("shared_buffers", ""), block_bytes)
    most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
    if wanted is None or wanted <= most:
        return []
    stays["shared_buffers"] = f"{most >> 20}MB"
    return [
        Finding(
            "memory-smaller",
            "warn",
            f"shared_buffers lowered from {wanted >> 20} to {most >> 20} MB, a quarter of this machine's memory",
            "start it on a larger machine if it is too slow",
        )
    ]


def _libraries(listed: str, folder: Path | None) -> tuple[list[str], list[str]]:
    names = [name.strip().strip('"') for name in listed.split(",") if name.strip()]
    if folder is None:
        return [Path(name).name for name in names], []  # nobody can say yet
    where = (folder.parent / "lib", folder.parent / "lib" / "postgresql")
    present = [name for name in names if any((place / f"{Path(name).name}.so").exists() for place in where)]
    return [Path(name).name for name in present], [name for name in names if name not in present]


def _superuser(environment: dict[str, Any]) -> str:
    """The one that made the cluster (its oid is 10), or another who may log in."""
    roles: list[dict[str, Any]] = environment.get("roles") or []
    able = [role for role in roles if role.get("superuser") and role.get("login")]
    able.sort(key=lambda role: int(role.get("oid") or 0))
    return str(able[0]["name"]) if able else "postgres"
