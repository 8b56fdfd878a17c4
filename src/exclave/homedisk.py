"""Home's own disk: full or forbidden is an error with a next step, and never the loss of anything abroad."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from exclave.errors import Unreachable


@contextmanager
def usable(path: Path) -> Generator[None]:
    """Turn what the system says of `path` into an error for people. Raises Unreachable("home-disk")."""
    try:
        yield
    except OSError as error:
        raise Unreachable(
            "home-disk",
            f"What home remembers cannot be kept in {path}",
            why=error.strerror or str(error),
            hint="free some space or mend the permissions, then run it again: what is abroad stays",
        ) from error
