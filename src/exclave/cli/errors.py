"""Errors as a user meets them: three lines, an id, an exit code; a report file for what nobody expected."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from exclave.cli.options import Call
    from exclave.errors import ExclaveError


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


def interrupted(call: Call) -> int:
    """Say that the run was stopped; 130, as shells expect."""
    if call.out.mode != "none":
        click.echo("stopped; nothing lost; run again to go on", err=True)
    return 130


def _print(call: Call, error_id: str, what: str, why: str, following: str, code: int) -> int:
    what, why, following = (" ".join(text.split()) for text in (what, why, following))
    if call.out.as_json:
        import json

        row = {
            "schema": "exclave/error/1",
            "id": error_id,
            "what": what,
            "why": why,
            "next": following,
            "exit": code,
        }
        click.echo(json.dumps(row, indent=2, ensure_ascii=False))
    click.echo(f"error[{error_id}]: {what}\n  why:  {why}\n  next: {following}", err=True)
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
