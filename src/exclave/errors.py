"""Every error a user can meet, grouped by whose move it is.

An error says three things: *what* failed, *why*, and what to do *next*; its `id` names the page that
`exclave explain ID` prints. Adapters turn foreign exceptions into these at their own door, `from error`.
`ValueError` stays for our own bugs.
"""

from __future__ import annotations

from typing import ClassVar


class ExclaveError(Exception):
    """Base of the five kinds. `exit_code` is part of the command line's contract (docs/reference)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, error_id: str, what: str, *, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.id = error_id
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class Unreachable(ExclaveError):
    """A site, server or file system did not answer, or has no room. Trying again may help."""

    exit_code = 8


class NotThere(ExclaveError):
    """What was asked for is not in this place. Look elsewhere."""

    exit_code = 1


class Tampered(ExclaveError):
    """Bytes are not what was written. Stop and alarm."""

    exit_code = 7


class Refused(ExclaveError):
    """A rule says no. Ask a person."""

    exit_code = 4


class QuorumMissing(Refused):
    """Fewer custodians (or copies) agreed than the threshold asks."""

    exit_code = 5


class Busy(Refused):
    """Another process is doing this very thing."""

    exit_code = 6


class Misconfigured(ExclaveError):
    """A setting, a file or the platform is not as it must be. Mend it."""

    exit_code = 2
