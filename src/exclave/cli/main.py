"""The command `exclave`: finds the verb, runs it, and says in three lines what went wrong."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import click

from exclave import leavings
from exclave.cli import writing
from exclave.cli.errors import (
    STOPPED,
    interrupted,
    report_error,
    report_lost,
    report_unexpected,
    report_usage,
)
from exclave.cli.options import Call
from exclave.errors import ExclaveError
from exclave.settings import nearest

# verb: (module that names its click command `command`, one line for --help). Imported only when the verb runs.
VERBS = {
    "init": ("exclave.cli.init", "Write a commented exclave.toml, and this home's writer key."),
    "register": ("exclave.cli.register", "Add, list and show what is protected."),
    "embassy": ("exclave.cli.embassy", "Add and list the places abroad, and probe what they guarantee."),
    "ceremony": ("exclave.cli.ceremony", "Make the custodians' keys and shares, and the realm's charter."),
    "protect": ("exclave.cli.protect", "Capture, seal and deliver a snapshot of each register."),
    "status": ("exclave.cli.status", "Say what can be restored, to when, from where."),
    "snapshots": ("exclave.cli.snapshots", "List the snapshots of a register."),
    "where": ("exclave.cli.where", "Say where every copy of a register is, and when it was last proven."),
    "verify": ("exclave.cli.verify", "Check every stored byte abroad, without any key."),
    "request": (
        "exclave.cli.request",
        "Ask the custodians to open registers, in one place, until a deadline.",
    ),
    "approve": ("exclave.cli.approve", "Approve or refuse a request, with one custodian's key."),
    "restore": (
        "exclave.cli.restore",
        "Restore a file, a folder or a whole register under an approved request.",
    ),
    "activate": ("exclave.cli.activate", "Restore registers abroad and start what serves them."),
    "doctor": ("exclave.cli.doctor", "Look for what would fail later; change nothing."),
    "config": ("exclave.cli.config", "Check and show the settings."),
    "explain": ("exclave.cli.explain", "Explain an error or a finding in full."),
    "demo": ("exclave.cli.demo.verb", "Tell the whole story on this machine in about a minute."),
    "version": ("exclave.cli.version", "Say which version this is and what it runs on."),
}


class Verbs(click.Group):
    """A group that imports a verb's module when the verb is used, so that the quick ones stay quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click calls it
        """Every verb, in the order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb, imported now."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name][0])
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but an unknown verb is answered with the nearest known one."""
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise click.UsageError(f"There is no verb {args[0]!r}{nearest(args[0], VERBS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list of `exclave --help`, without importing any verb."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_module, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def exclave() -> None:
    """Keep a state's registers alive abroad, under its own jurisdiction.

    Results go to standard output, talk to standard error. Exit codes: 0 done, 1 failed, 2 usage or settings,
    3 done with gaps, 4 policy refuses, 5 quorum missing, 6 busy, 7 verification failed, 8 unreachable,
    130 stopped by Ctrl-C or SIGTERM.
    """


def run(arguments: list[str]) -> int:
    """Run one command line; the exit code. Never raises for what a user can meet."""
    call = Call()
    call.out.as_json = "--json" in arguments
    code = _run(call, arguments)
    lost = call.out.flush()
    return code if lost is None else report_lost(call, lost, code)


def _run(call: Call, arguments: list[str]) -> int:
    try:
        code = exclave.main(arguments, prog_name="exclave", standalone_mode=False, obj=call)
    except ExclaveError as error:
        return report_error(call, error)
    except click.exceptions.NoArgsIsHelpError as error:
        call.out.error(error.format_message())
        return 2
    except click.ClickException as error:
        return report_usage(call, error)
    except (KeyboardInterrupt, click.Abort):
        return interrupted(call)
    except SystemExit:  # click's answer when the reader of a help page has left (`exclave --help | head`)
        return 0
    except Exception as error:  # noqa: BLE001  the one place where everything unexpected ends
        if isinstance(error, OSError) and _is_of_click(error):
            return report_lost(call, error, 0)
        return report_unexpected(call, error)
    return code if isinstance(code, int) else 0


def _is_of_click(error: OSError) -> bool:
    """Whether it was met by click, which writes the help pages and nothing else."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return at is not None and str(at.tb_frame.f_globals.get("__name__")) == "click.utils"


def main() -> None:
    """Run the command line of this process, and end the process."""
    writing.open_missing()
    try:
        _listen(_stop)
        code = run(sys.argv[1:])
        _listen(_leave)
    except KeyboardInterrupt:  # in the few instructions in which nothing else answers it
        _leave(signal.SIGINT, None)
        return
    writing.let_go()
    if code == STOPPED and threading.active_count() > 1:
        # Workers may be deep in a read or a put. Every write is create-only and ordered, so leaving at once is safe.
        leavings.remove_all()
        os._exit(code)
    sys.exit(code)


def _listen(answer: Callable[[int, FrameType | None], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, answer)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """The verb is over, or stopped already: leave without waiting for anything."""
    leavings.remove_all()
    os._exit(STOPPED)


if __name__ == "__main__":
    main()
