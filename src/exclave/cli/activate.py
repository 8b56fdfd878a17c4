"""`exclave activate`: registers restored abroad and started, under a request that a quorum approved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.cli.collector import relax
from exclave.cli.opening import approved_request, beside, opened
from exclave.cli.options import Call, standard
from exclave.cli.progress import span
from exclave.cli.words import clock, instant, now, plural

if TYPE_CHECKING:
    from exclave.cli.progress import Task
    from exclave.flows.activation_record import Activation
    from exclave.types import Instant

SAFE = "safe to interrupt: home is not touched; what is half restored is begun anew by the same command"


@click.command("activate", short_help="Restore registers abroad and start what serves them.")
@approved_request
@click.option("--dark-since", metavar="TIME", help="When home went dark; the loss is counted to this moment.")
@click.option("--stop", is_flag=True, help="Stop what the last activation started; what it restored stays.")
@click.option("--yes", is_flag=True, help="Do not ask for the realm's name before stopping.")
@click.option("--dry-run", is_flag=True, help="Say what would be opened and started; open nothing.")
@standard
def command(
    call: Call,
    *,
    request: Path,
    approvals: tuple[Path, ...],
    dark_since: str | None,
    stop: bool,
    yes: bool,
    dry_run: bool,
) -> int:
    """Open what custodians approved, restore its registers here, check them, and start what serves them."""
    if stop:
        return _stop(call, yes=yes, dry_run=dry_run)
    if dry_run:
        return _rehearse(call, request, approvals)
    began, dark = now(), instant(dark_since) if dark_since else None
    activation = _run(call, request, approvals, began, dark)
    _tell(call, activation)
    return 3 if any(served.gaps for served in activation.registers) else 0


def _run(
    call: Call, request: Path, approvals: tuple[Path, ...], began: Instant, dark: Instant | None
) -> Activation:
    from exclave import wiring
    from exclave.flows.activate import Ground, activate
    from exclave.locks import exclusive

    config = call.config()
    relax()
    call.out.say("joining the key in a process of its own")
    with (
        exclusive(records(call) / "activate.lock", what="activating here"),
        opened(config, request, approvals, call.out.say) as ready,
        call.out.progress(safe=SAFE) as board,
    ):
        call.out.say(f"approved by {', '.join(ready.custodians)}")
        shown: list[Task] = []

        def next_task(name: str) -> Task:
            """One register after the other: what was shown before is done."""
            for task in shown:
                task.finish()
            shown.append(board.task(name))
            return shown[-1]

        return activate(
            ready.session,
            ready.papers,
            wiring.embassies(config),
            Ground(
                place=config.activation.place,
                rebuilders=wiring.rebuilders(config),
                runtimes=wiring.runtimes(config),
                records=records(call),
                keep_owners=os.geteuid() == 0,
            ),
            began=began,
            dark_since=dark,
            custodians=ready.custodians,
            told=next_task,
        )


def records(call: Call) -> Path:
    """Where this party keeps its activation records."""
    return call.config().state / "activations"


def _stop(call: Call, *, yes: bool, dry_run: bool) -> int:
    from exclave import wiring
    from exclave.flows import activation_record
    from exclave.flows.activate import end
    from exclave.runtimes.base import services

    config = call.config()
    activation = activation_record.running(records(call))
    running = services(wiring.services(config))
    names = ", ".join(served.name for served in activation.registers)
    if not dry_run:
        call.out.confirm(config.realm.name, f"This ends {names} for everybody who uses them here", yes=yes)
    for served in activation.registers:
        call.out.line(f"{'would stop' if dry_run else 'stopping'} {served.name} ({served.address})")
    if not dry_run:
        activation = end(activation, wiring.runtimes(config), running, records(call))
        call.out.line(f"stopped; what was restored stays in {config.activation.place}")
    call.out.document(dry_run=dry_run, activation=activation_record.document(activation))
    return 0


def _rehearse(call: Call, request: Path, approvals: tuple[Path, ...]) -> int:
    from exclave import wiring
    from exclave.custody import request as requests
    from exclave.flows.request import read

    config = call.config()
    papers = wiring.papers(config)
    asked = requests.parse(read(request))
    names = [papers.annex.registers[wanted.register] for wanted in asked.registers]
    answers = [path.name for path in approvals or beside(request)]
    call.out.line(f"would open {', '.join(names)} into {config.activation.place}")
    call.out.line(f"{papers.charter.threshold} custodians must agree; {len(answers)} answers are here")
    call.out.document(dry_run=True, registers=names, answers=answers, threshold=papers.charter.threshold)
    return 0


def _tell(call: Call, activation: Activation) -> None:
    from exclave.flows import activation_record

    for served in activation.registers:
        verb = "serving at" if served.service else "laid out and checked in"
        call.out.line(f"{served.name}: {verb} {served.address}")
        lost = span(activation.rpo_seconds(served))
        counted = "home went dark" if activation.dark_since else "the command"
        call.out.line(
            f"  snapshot {served.snapshot}, consistent at {clock(served.consistent_at)}: "
            f"at most {lost} before {counted} are lost (RPO)"
        )
        call.out.line(
            f"  ready {served.ready_seconds:.1f} s after the command: "
            + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in served.phases.items())
        )
        for check in served.checks:
            call.out.line(f"  {check}")
    call.out.line(
        f"{plural(len(activation.registers), 'register')} ready after {activation.rto_seconds():.1f} s (RTO)."
    )
    call.out.line("Next: exclave activate --stop ends it.")
    call.out.document(activation=activation_record.document(activation))
