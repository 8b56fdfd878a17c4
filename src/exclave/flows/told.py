"""Progress, as far as a flow tells it."""

from __future__ import annotations

from typing import Protocol


class Told(Protocol):
    """What a display of progress must take."""

    def phase(self, what: str, total: int = 0) -> None:
        """A new phase begins; `total` bytes if known."""
        ...

    def told(self, files: int, done: int) -> None:
        """So much of it is done."""
        ...
