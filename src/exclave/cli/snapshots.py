"""`exclave snapshots`: what a register can be restored to."""

from __future__ import annotations

import click

from exclave import instants
from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.cli.words import age, clock


@click.command("snapshots", short_help="List the snapshots of a register.")
@click.argument("register")
@standard
def command(call: Call, register: str) -> int:
    """List the snapshots of REGISTER that the embassies show, oldest first, each verified by its signature."""
    from exclave import wiring
    from exclave.embassies import inspect

    config = call.config()
    asked = wiring.asked(config, register)[0]
    history = inspect.history(wiring.embassies(config), asked.register, asked.writers)
    rows: list[dict[str, object]] = []
    table: list[tuple[str, ...]] = []
    for commit in history.commits:
        holders = sorted(name for name, head in history.heads.items() if head >= commit.sequence)
        added = sum(pack.size for pack in commit.packs) + sum(
            part.size for part in (*commit.manifest, *commit.index)
        )
        kind = "full" if commit.full else "delta"
        table.append(
            (
                str(commit.sequence),
                clock(commit.at),
                age(commit.at),
                kind,
                size(added),
                str(commit.gaps),
                ", ".join(holders),
            )
        )
        rows.append(
            {
                "snapshot": commit.sequence,
                "term": commit.term,
                "epoch": commit.epoch,
                "at": instants.to_text(commit.at),
                "full": commit.full,
                "stored_bytes": added,
                "gaps": commit.gaps,
                "holders": holders,
            }
        )
    call.out.table(("snapshot", "restores to", "age", "manifest", "added", "gaps", "at"), table)
    for name, why in sorted(history.unreachable.items()):
        call.out.line(f"{name} does not answer: {why}")
    for trouble in history.troubles:
        call.out.line(f"{trouble.embassy}: {trouble.path}: {trouble.why}")
    call.out.document(register=register, snapshots=rows, unreachable=history.unreachable)
    return 3 if history.unreachable or history.troubles else 0
