"""Errors as a user meets them: three lines, an id, an exit code; a report file for what nobody expected."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.printable import printable

if TYPE_CHECKING:
    from exclave.cli.options import Call
    from exclave.errors import ExclaveError


STOPPED = 130  # as shells expect of a program that a signal stopped


def report_error(call: Call, error: ExclaveError) -> int:
    """Print an expected error; its exit code."""
    why = error.why or f"see exclave explain {error.id}"
    return _print(
        call, error.id, error.what, why, error.hint or f"exclave explain {error.id}", error.exit_code
    )


def report_usage(call: Call, error: click.ClickException) -> int:
    """Print a mistake on the command line; 2."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context else "exclave"
    why = error.format_message().rstrip(".")
    return _print(call, "usage", "This command line cannot be run", why, f"{path} --help", 2)


def report_unexpected(call: Call, error: Exception) -> int:
    """Write the traceback (without values of variables) into a report file, print three lines; 1."""
    why = f"{type(error).__name__}: this is a fault of exclave, not of yours"
    try:
        where = _write_report(call, error)
        hint = f"send {where} to whoever supports you; it holds no values of variables"
    except OSError as failed:
        hint = f"run it again; no report could be written ({failed.strerror})"
    return _print(call, "unexpected", "Something happened that nobody expected", why, hint, 1)


def report_lost(call: Call, error: OSError, code: int) -> int:
    """The work is done and its result reached nobody: the verb's own exit code, or 1 when that was 0."""
    call.out.as_json = False  # nothing can be written there
    why = f"{error.strerror or error}; what the command did stays done"
    _print(call, "output-lost", "The result could not be written to standard output", why, "df -h", 1)
    return code or 1


def interrupted(call: Call) -> int:
    """Say that the run was stopped."""
    call.out.say("stopped; nothing lost; run again to go on")
    return STOPPED


def _print(call: Call, error_id: str, what: str, why: str, following: str, code: int) -> int:
    what, why, following = (printable(" ".join(text.split())) for text in (what, why, following))
    call.out.failure(id=error_id, what=what, why=why, next=following, exit=code)
    call.out.error(f"error[{error_id}]: {what}\n  why:  {why}\n  next: {following}")
    return code


def _write_report(call: Call, error: Exception) -> Path:
    import tempfile
    import traceback

    from exclave.cli.version import facts

    try:
        folder = call.config().state / "reports"
    except Exception:  # noqa: BLE001  no settings, no state folder: the report matters more
        folder = Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}: {value}" for name, value in facts().items()]
    text = "".join(traceback.format_exception(error))
    name = f"exclave-report-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.txt"
    descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write("\n".join([f"verb: {call.out.verb}", *lines, "", text]))
    return folder / name
