"""From settings to live objects: the only module that names adapters. Each is imported when it is asked for."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.config import Config

WRITER_SEED = "writer.seed"


def secret(path: Path) -> Path:
    """`path`, when it is a file that only its owner can read, and its owner is us. Raises Misconfigured."""
    try:
        status = path.stat()
    except OSError as error:
        raise Misconfigured(
            "secret-unreadable",
            f"{path} cannot be read",
            why=error.strerror or str(error),
            hint="exclave doctor",
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise Misconfigured(
            "secret-unreadable", f"{path} cannot be read", why="it is no file", hint="exclave doctor"
        )
    if status.st_uid != os.geteuid():
        why = f"it belongs to user {status.st_uid}, and this is user {os.geteuid()}"
        raise Misconfigured(
            "secret-exposed", f"{path} is not ours", why=why, hint=f"chown {os.geteuid()} {path}"
        )
    if status.st_mode & 0o077:
        why = f"its mode is {stat.S_IMODE(status.st_mode):04o}, so others may read it"
        raise Misconfigured("secret-exposed", f"{path} is not kept secret", why=why, hint=f"chmod 600 {path}")
    return path


def check_secrets(config: Config) -> None:
    """Look at the permissions of every secret file that the settings name or imply. Raises Misconfigured."""
    if config.home is not None:
        for path in sorted(config.home.keys.rglob("*")):
            if path.is_file():
                secret(path)
    for row in (
        *(r.password_file for r in config.registers),
        *(e.credentials_file for e in config.embassies),
    ):
        if row is not None:
            secret(row)
