"""Makes a restored data directory ready to start away from home, and checks it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exclave.errors import Misconfigured, Tampered
from exclave.registers.base import Finding, Rebuilt
from exclave.registers.postgres import binaries, configuration
from exclave.registers.postgres.preflight import lacking

_SEGMENT = re.compile(r"[0-9A-F]{24}")
_DEFAULT_SEGMENT_BYTES = 16 << 20
_MARK = (
    "exclave_rebuilt"  # how far an earlier `finish` came, so that our own changes are not taken for damage
)


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
        if folder is not None:
            checks += lacking(environment, folder)
        if not came:
            _pad_wal(place, int(environment.get("wal_segment_bytes") or _DEFAULT_SEGMENT_BYTES))
            checks.append(_verified(place, folder))
            mark.write_text("verified", encoding="ascii")
        _close(place)
        checks += _place_tablespaces(place)
        checks += configuration.replace(place, environment, folder)
        (place / "standby.signal").unlink(
            missing_ok=True
        )  # home was a standby: here it must end its recovery
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
                    "tablespaces-in-the-way",
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
