"""The unprivileged account that database servers run as when we are root, and what it can reach."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exclave.errors import Misconfigured

_COPIES = Path("/var/tmp")  # noqa: S108 - only below a folder of root's own, checked before use


@dataclass(frozen=True, slots=True)
class Account:
    """A user without rights; it has a name because `initdb` insists on one."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """None unless we are root; then `postgres` if this machine has it, else `nobody`. Raises Misconfigured."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise Misconfigured(
        "account-missing",
        "PostgreSQL cannot be started",
        why="it refuses to run as root, and this machine has neither a postgres nor a nobody account",
        hint="useradd --system postgres",
    )


def can_reach(account: Account | None, path: Path) -> bool:
    """Whether `account` may pass through every folder above `path` (by mode bits; ACLs are not looked at)."""
    return account is None or all(_passes(account, folder) for folder in path.resolve().parents)


def require_reach(account: Account | None, place: Path) -> None:
    """Raises Misconfigured when `account` cannot come to `place`."""
    if account is None or can_reach(account, place):
        return
    wall = next(folder for folder in reversed(place.resolve().parents) if not _passes(account, folder))
    raise Misconfigured(
        "place-not-reachable",
        f"PostgreSQL cannot serve {place}",
        why=f"it runs as {account.name}, who may not enter {wall}",
        hint="restore into a folder that others may pass through, such as one below /var/lib or /srv",
    )


def hand_over(account: Account | None, tree: Path) -> None:
    """Make `account` the owner of `tree` and all that is in it; links are not followed. May be repeated."""
    if account is None:
        return
    for path in _everything(tree):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def private_folder(account: Account | None) -> Path:
    """A new folder, mode 0700, that only `account` (or we) can enter; short, because socket paths are bounded."""
    folder = Path(tempfile.mkdtemp(prefix="exclave-", dir="/tmp"))
    hand_over(account, folder)
    return folder


def within_reach(account: Account | None, programs: Path) -> Path:
    """`programs`, or a copy of its installation if `account` cannot come to it (a wheel below /root, say).

    The copy keeps the places of `bin`, `lib`, `share` and of the wheel's libraries to each other. It is made once
    for each state of the original, below a folder that belongs to root.
    """
    if account is None or (can_reach(account, programs / "postgres") and _readable(programs / "postgres")):
        return programs
    install = programs.parent
    package = install.parent
    stamp = f"{install.resolve()} {os.stat(programs / 'postgres').st_mtime_ns}"
    shelf = _COPIES / "exclave-postgres"
    shelf.mkdir(mode=0o755, exist_ok=True)
    owned = os.lstat(shelf)
    if owned.st_uid != 0 or not stat.S_ISDIR(owned.st_mode) or owned.st_mode & 0o022:
        raise Misconfigured(
            "shelf-not-ours",
            f"{shelf} is not safe to use",
            why="it does not belong to root alone",
            hint=f"rm -r {shelf}",
        )
    copy = shelf / hashlib.sha256(stamp.encode()).hexdigest()[:16]
    if not copy.exists():
        part = Path(tempfile.mkdtemp(prefix="part-", dir=shelf))
        shutil.copytree(install, part / package.name / install.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, part / libraries.name, symlinks=True)
        for path in _everything(part):
            if not path.is_symlink():
                path.chmod(
                    0o755
                    if path.is_dir() or (os.access(path, os.X_OK) and path.stat().st_mode & 0o100)
                    else 0o644
                )
        try:
            part.rename(copy)
        except OSError:  # another process was quicker
            shutil.rmtree(part)
    return copy / package.name / install.name / programs.name


def _passes(account: Account, folder: Path) -> bool:
    status = folder.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _readable(program: Path) -> bool:
    return program.stat().st_mode & 0o005 == 0o005


def _everything(tree: Path) -> Iterator[Path]:
    yield tree
    for folder, folders, files in os.walk(tree):
        for name in (*folders, *files):
            yield Path(folder, name)
