"""The folder in which the demonstration happens: made where a database server may go, and removed without a trace."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from exclave.cli.demo import home
from exclave.errors import Misconfigured
from exclave.runtimes import account
from exclave.runtimes.base import services
from exclave.runtimes.postgres import PostgresRuntime
from exclave.runtimes.static import StaticRuntime

_MARK = ".exclave-demo"
ABROAD = "luxembourg-site"


def prepare(wish: Path) -> Path:
    """A new, empty folder at `wish`; an earlier demonstration there is removed first. Raises Misconfigured.

    When the account that PostgreSQL runs as cannot come to `wish` (we are root, below /root), the folder is made
    below /var/tmp and `wish` is a link to it.
    """
    if wish.is_symlink() or wish.exists():
        clean(wish)
    wish.parent.mkdir(parents=True, exist_ok=True)
    if account.can_reach(account.unprivileged(), wish.absolute()):
        wish.mkdir()
    else:
        wish.symlink_to(tempfile.mkdtemp(prefix="exclave-demo-", dir="/var/tmp"))
    wish.chmod(0o711)
    (wish / _MARK).touch()
    return wish


def clean(wish: Path) -> None:
    """Stop and remove what a demonstration left at `wish`. Raises Misconfigured when that is something else."""
    if not wish.exists() and not wish.is_symlink():
        return
    if wish.exists() and not (wish / _MARK).exists():
        why = "it was not made by the demonstration, so it is not removed"
        raise Misconfigured(
            "demo-folder-taken", f"{wish} is in use", why=why, hint="exclave demo --dir ANOTHER"
        )
    if wish.exists():
        home.kill(wish / "home")
        stop(wish / ABROAD / "state" / "services")
        shutil.rmtree(wish.resolve())
    if wish.is_symlink():
        wish.unlink()


def stop(folder: Path) -> None:
    """Stop every service that an activation started."""
    for service in services(folder):
        runtime = PostgresRuntime(folder) if service.kind == "postgres" else StaticRuntime(folder)
        runtime.stop(service)
