"""Makes a restored data directory ready to start away from home, and checks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave.errors import ExclaveError, Misconfigured, Tampered
from exclave.registers.base import Finding, Rebuilt
from exclave.registers.postgres import binaries, settings

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_DEFAULT_SEGMENT_BYTES = 16 << 20
_MARK = (
    "exclave_rebuilt"  # how far an earlier `finish` came, so that our own changes are not taken for damage
)
_CONTROL = re.compile(r"^(max_[a-z_]+)(?:_xact)? setting:\s+(\d+)$", re.MULTILINE)
_HOME = ".home"  # suffix under which home's own version of a file stays beside ours
_ACCESS = "local all all peer\nlocal all all scram-sha-256\n"


@dataclass(frozen=True, slots=True)
class PostgresRebuilder:
    """`programs`: where the server programs are, if not in one of the usual places (see `binaries.find`).

    The restored cluster keeps home's data and those of its settings that are safe abroad. Its tablespaces stand in
    `<place>-tablespaces/<oid>`. On its first start it recovers to the end of its WAL and begins a timeline of its own.
    """

    programs: Path | None = None

    def finish(self, place: Path, environment: dict[str, Any]) -> Rebuilt:
        """Ready to start when this returns. Raises Tampered (`backup-not-whole`), Misconfigured.

        May be repeated after an interruption; a cluster that is ready already, or was started, stays as it is.
        """
        major = _major(place)
        mark = place / _MARK
        came = mark.read_text(encoding="ascii") if mark.exists() else ""
        if came == "ready":
            return Rebuilt(
                place, [Finding("rebuilt-before", "ok", "it was made ready before, and is left as it is")]
            )
        checks: list[Finding] = []
        folder = self._find(major, checks)
        if not came:
            _pad_wal(place, int(environment.get("wal_segment_bytes") or _DEFAULT_SEGMENT_BYTES))
            checks.append(_verified(place, folder))
            mark.write_text("verified", encoding="ascii")
        _close(place)
        checks += _place_tablespaces(place)
        checks += _configure(place, environment, folder)
        (place / "recovery.signal").touch(mode=0o600)
        mark.write_text("ready", encoding="ascii")
        return Rebuilt(place, checks)

    def _find(self, major: int, checks: list[Finding]) -> Path | None:
        try:
            return binaries.find(major, configured=self.programs)
        except Misconfigured as error:
            checks.append(
                Finding(error.id, "warn", f"{error}: not verified, cannot be started here", error.hint)
            )
            return None


def _major(place: Path) -> int:
    try:
        return int((place / "PG_VERSION").read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise Tampered(
            "not-a-cluster",
            f"{place} is not a PostgreSQL data directory",
            why="it has no readable PG_VERSION",
            hint="exclave verify",
        ) from error


def _pad_wal(place: Path, segment_bytes: int) -> None:
    """A last segment that is short makes the server lose the last commits in silence; zeros make it whole."""
    (place / "pg_wal" / "archive_status").mkdir(mode=0o700, parents=True, exist_ok=True)
    for segment in (place / "pg_wal").iterdir():
        if _SEGMENT.fullmatch(segment.name):
            size = segment.stat().st_size
            if size > segment_bytes:
                raise Tampered(
                    "backup-not-whole",
                    f"{segment} is not a WAL segment of this cluster",
                    why=f"{size} bytes, a segment has {segment_bytes}",
                    hint="exclave verify",
                )
            if size < segment_bytes:
                os.truncate(segment, segment_bytes)


def _verified(place: Path, folder: Path | None) -> Finding:
    """Every file against the server's own manifest, and the WAL that the backup needs."""
    program = folder / "pg_verifybackup" if folder else None
    if folder is None or program is None or not program.exists():
        return Finding(
            "backup-unverified",
            "warn",
            "pg_verifybackup is not there: files not compared",
            "install the server programs",
        )
    command: list[str | Path] = [program, "--quiet"]
    wal = (folder / "pg_waldump").exists()
    if not wal:
        command.append("--no-parse-wal")
    done = subprocess.run(
        [*command, place],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": str(folder), "LC_ALL": "C"},
    )
    if done.returncode != 0:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[:5])
        raise Tampered(
            "backup-not-whole",
            f"The restored cluster in {place} is not what the server sent",
            why=said,
            hint="exclave verify, then restore again",
        )
    return Finding("backup-verified", "ok", f"pg_verifybackup agrees{'' if wal else ' (WAL not looked at)'}")


def _close(place: Path) -> None:
    """PostgreSQL starts only in a folder that is closed to others."""
    place.chmod(0o700)
    for folder, _, _ in os.walk(place):
        Path(folder).chmod(0o700)


def _place_tablespaces(place: Path) -> list[Finding]:
    """Each tablespace that stood elsewhere gets its folder beside `place`, a link to it, and its line in the map.

    The server makes the links anew from the map, and cannot if a real folder stands in the way.
    """
    listed = place / "tablespace_map"
    if not listed.exists():
        return []
    beside = place.with_name(f"{place.name}-tablespaces").absolute()
    lines: list[str] = []
    for line in listed.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        oid = line.partition(" ")[0]
        if not oid.isdigit():
            raise Tampered(
                "backup-not-whole", f"{listed} cannot be read", why=f"line {line!r}", hint="exclave verify"
            )
        beside.mkdir(mode=0o700, exist_ok=True)
        link, target = place / "pg_tblspc" / oid, beside / oid
        if link.is_dir() and not link.is_symlink():
            if target.exists():
                raise Misconfigured(
                    "place-taken",
                    f"{target} is in the way",
                    why="a tablespace goes there",
                    hint=f"mv {target} away",
                )
            shutil.move(link, target)
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        lines.append(f"{oid} {_escaped(str(target))}\n")
    listed.write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
    if not lines:
        return []
    return [Finding("tablespaces-placed", "ok", f"{len(lines)} tablespaces stand in {beside}")]


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace("\n", "\\\n").replace("\r", "\\\r")


def _configure(place: Path, environment: dict[str, Any], folder: Path | None) -> list[Finding]:
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
    able = [role for role in environment.get("roles") or [] if role.get("superuser") and role.get("login")]
    able.sort(key=lambda role: int(role.get("oid") or 0))
    return str(able[0]["name"]) if able else "postgres"


def missing_abroad(environment: dict[str, Any], *, programs: Path | None = None) -> list[Finding]:
    """What this machine lacks to serve a register with this environment; looked at before anything is fetched."""
    try:
        folder = binaries.find(int(environment["major"]), configured=programs)
    except ExclaveError as error:
        return [Finding(error.id, "fail", str(error), error.hint)]
    wanted = {
        row["name"] for base in environment.get("databases") or [] for row in base.get("extensions") or []
    }
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
