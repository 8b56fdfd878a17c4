"""`exclave protect`: a snapshot of each register, sealed here, durable abroad."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import click

from exclave import instants
from exclave.cli.collector import relax
from exclave.cli.errors import report_error
from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.cli.words import clock, plural, seconds
from exclave.errors import ExclaveError, Misconfigured

if TYPE_CHECKING:
    from exclave.cli.progress import Task
    from exclave.flows.home import Protected

SAFE = "safe to interrupt: run it again and it goes on"
AT_ONCE = 2  # registers read at the same time: each takes buffers of its own


@click.command("protect", short_help="Capture, seal and deliver a snapshot of each register.")
@click.argument("registers", nargs=-1, metavar="[REGISTER]...")
@click.option("--watch", metavar="INTERVAL", help="Repeat for ever, beginning every INTERVAL (15min, 2h).")
@click.option("--dry-run", is_flag=True, help="Say what would be read and where it would go; change nothing.")
@standard
def command(call: Call, registers: tuple[str, ...], watch: str | None, dry_run: bool) -> int:
    """Make the next snapshot of each REGISTER (of all, when none is named), durable at enough embassies."""
    names = _names(call, registers)
    if dry_run:
        return _rehearse(call, names)
    relax()
    if watch is None:
        return _round(call, names)
    pause = seconds(watch)
    while True:
        began = time.monotonic()
        code = _round(call, names)
        call.out.flush()
        rest = max(0.0, began + pause - time.monotonic())
        call.out.say(f"{'done' if code in (0, 3) else 'failed'}; the next round begins in {rest:.0f} s")
        time.sleep(rest)


def _names(call: Call, registers: tuple[str, ...]) -> list[str]:
    config = call.config()
    config.at_home()
    names = [config.register(name).name for name in registers] or [one.name for one in config.registers]
    if not names:
        hint = "exclave register add --help"
        raise Misconfigured(
            "no-registers", "There is nothing to protect", why=f"{config.file} names no register", hint=hint
        )
    return names


def _rehearse(call: Call, names: list[str]) -> int:
    from exclave import wiring

    config = call.config()
    rows = [(name, wiring.register(config, name).size_hint()) for name in names]
    targets = ", ".join(one.name for one in config.embassies)
    for name, count in rows:
        call.out.line(f"would read {name} (about {size(count)}) and deliver what is new to {targets}")
    call.out.document(dry_run=True, registers=[{"name": name, "bytes": count} for name, count in rows])
    return 0


def _round(call: Call, names: list[str]) -> int:
    """One snapshot of each register, several at a time; one that fails does not stop the others."""
    pool = ThreadPoolExecutor(AT_ONCE, "protect")
    try:
        with call.out.progress(safe=SAFE) as board:
            runs = [(name, pool.submit(_one, call, name, board.task(name))) for name in names]
            ended = [(name, run.exception(), run) for name, run in runs]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupted run does not wait for its readers
    done = [run.result() for _name, error, run in ended if error is None]
    failed = [(name, error) for name, error, _run in ended if error is not None]
    for one in done:
        _tell(call, one)
    call.out.document(
        snapshots=[_fields(one) for one in done],
        failed=[
            {"register": name, "id": getattr(error, "id", "unexpected"), "what": str(error)}
            for name, error in failed
        ],
    )
    codes: list[int] = []
    told: set[tuple[str, str, str]] = set()
    for _name, error in failed:
        if not isinstance(error, ExclaveError):
            raise error
        said = (error.id, error.what, error.why)
        if said in told:
            continue  # what stops every register alike is told once
        told.add(said)
        as_json, call.out.as_json = call.out.as_json, False  # the document was printed: one a run
        codes.append(report_error(call, error))
        call.out.as_json = as_json
    return codes[0] if codes else 3 if any(one.gaps for one in done) else 0


def _one(call: Call, name: str, task: Task) -> Protected:
    from exclave import wiring
    from exclave.flows.protect import protect

    config = call.config()
    home = config.at_home()
    try:
        return protect(
            wiring.home(config, name),
            wiring.embassies(config),
            copies=home.copies,
            patience_seconds=home.patience_seconds,
            told=task,
        )
    finally:
        task.finish()


def _tell(call: Call, one: Protected) -> None:
    # Of a tiny register more is stored than there is, because sizes are rounded up: a share would say nothing.
    of = f" ({one.stored_bytes / one.bytes:.1%} of it)" if one.stored_bytes < one.bytes else ""
    call.out.line(
        f"{one.register}: snapshot {one.sequence}, consistent at {clock(one.consistent_at)}; "
        f"{size(one.bytes)} in {plural(one.files, 'file')}; "
        f"{size(one.stored_bytes)} sealed and sent to each embassy{of}"
    )
    call.out.line(f"  held by {', '.join(sorted(one.holders))}")
    for name, why in sorted(one.behind.items()):
        call.out.line(f"  {name} is behind, and catches up by itself: {why}")
    for gap in one.gaps:
        call.out.line(f"  gap: {gap.path.decode(errors='backslashreplace')}: {gap.why}")


def _fields(one: Protected) -> dict[str, object]:
    return {
        "register": one.register,
        "sequence": one.sequence,
        "consistent_at": instants.to_text(one.consistent_at),
        "position": one.position,
        "holders": sorted(one.holders),
        "behind": dict(one.behind),
        "files": one.files,
        "bytes": one.bytes,
        "new_bytes": one.new_bytes,
        "stored_bytes": one.stored_bytes,
        "full": one.full,
        "gaps": [{"path": gap.path.decode(errors="backslashreplace"), "why": gap.why} for gap in one.gaps],
    }
