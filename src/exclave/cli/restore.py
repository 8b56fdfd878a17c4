"""`exclave restore`: a file, a folder or a whole register, under a request that a quorum approved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.cli.collector import relax
from exclave.cli.opening import approved_request, beside, opened
from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.cli.words import clock, plural
from exclave.errors import Refused

if TYPE_CHECKING:
    from exclave.cli.opening import Opened
    from exclave.cli.progress import Task
    from exclave.custody.request import Wanted
    from exclave.flows.restore import Restored

SAFE = "safe to interrupt: nothing is overwritten; give an empty folder and run it again"


@click.command("restore", short_help="Restore a file, a folder or a whole register.")
@click.argument("register")
@click.argument("path", required=False, default="")
@click.option(
    "--to",
    "place",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="An empty or new folder.",
)
@approved_request
@click.option("--dry-run", is_flag=True, help="Say what would be restored from which request; open nothing.")
@standard
def command(
    call: Call,
    register: str,
    path: str,
    place: Path,
    request: Path,
    approvals: tuple[Path, ...],
    dry_run: bool,
) -> int:
    """Restore REGISTER into a folder, or only PATH (a file or folder inside it). Proven equal to what was sealed."""
    config = call.config()
    place = Path(os.path.abspath(place))
    if dry_run:
        answers = [path.name for path in approvals or beside(request)]
        call.out.line(
            f"would restore {path or 'all'} of {register} into {place}, by {request}, {len(answers)} answers"
        )
        call.out.document(
            dry_run=True, register=register, path=path or None, place=str(place), answers=answers
        )
        return 0
    relax()
    with opened(config, request, approvals, call.out.say) as ready, call.out.progress(safe=SAFE) as board:
        task = board.task(register)
        restored = _run(call, ready, _wanted(ready, register), path, place, task)
        task.finish()
    _tell(call, restored, path)
    return 3 if restored.gaps else 0


def _wanted(ready: Opened, register: str) -> Wanted:
    names = ready.papers.annex.registers
    for wanted in ready.session.request.registers:
        if names[wanted.register] == register:
            return wanted
    asked = ", ".join(names[wanted.register] for wanted in ready.session.request.registers)
    raise Refused(
        "not-in-request",
        f"The custodians did not open {register}",
        why=f"their approval is for {asked}",
        hint="exclave request --help",
    )


def _run(call: Call, ready: Opened, wanted: Wanted, path: str, place: Path, task: Task) -> Restored:
    from exclave import wiring
    from exclave.embassies import inspect
    from exclave.embassies.fetch import Fetcher
    from exclave.flows.choosing import choose
    from exclave.flows.restore import restore

    config = call.config()
    embassies = wiring.embassies(config)
    writer = ready.papers.charter.epoch(wanted.register, wanted.epoch).writer
    history = inspect.history(embassies, wanted.register, writer)
    restored = restore(
        choose(history.commits, wanted, ready.session.request),
        fetcher=Fetcher(embassies),
        opener=ready.session,
        place=place,
        only=os.fsencode(path),
        keep_owners=os.geteuid() == 0,
        rebuilder=None,
        told=task,
    )
    if path:
        return restored
    task.phase("check")
    rebuilder = wiring.rebuilders(config).get(restored.kind)
    checks = rebuilder.finish(place, restored.environment).checks if rebuilder else []
    for check in checks:
        call.out.line(f"{check.level}: {check.text}")
    return restored


def _tell(call: Call, restored: Restored, path: str) -> None:
    what = f"{path} of {restored.register}" if path else restored.register
    call.out.line(
        f"{what}: snapshot {restored.sequence}, consistent at {clock(restored.consistent_at)}, "
        f"{size(restored.bytes)} in {plural(restored.files, 'file')}, equal to what was sealed"
    )
    call.out.line(f"  in {restored.place}")
    for gap in restored.gaps:
        call.out.line(f"  gap: {gap.path.decode(errors='backslashreplace')}: {gap.why}")
    call.out.document(
        register=restored.register,
        kind=restored.kind,
        snapshot=restored.sequence,
        path=path or None,
        place=str(restored.place),
        files=restored.files,
        bytes=restored.bytes,
        gaps=[{"path": gap.path.decode(errors="backslashreplace"), "why": gap.why} for gap in restored.gaps],
    )
