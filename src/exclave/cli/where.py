"""`exclave where`: every copy of a register, and when it was last proven."""

from __future__ import annotations

import click

from exclave import instants
from exclave.cli.options import Call, standard
from exclave.cli.words import age


@click.command("where", short_help="Say where every copy of a register is, and when it was last proven.")
@click.argument("register")
@standard
def command(call: Call, register: str) -> int:
    """Say where every copy of REGISTER is, how far it reaches, how it is locked, and when it was last proven."""
    from exclave import wiring
    from exclave.embassies import inspect, probed, proven

    config = call.config()
    asked = wiring.asked(config, register)[0]
    history = inspect.history(wiring.embassies(config), asked.register, asked.writers)
    proofs = proven.load(config.state, asked.register)
    troubles = {trouble.embassy: f"{trouble.path}: {trouble.why}" for trouble in history.troubles}
    table: list[tuple[str, ...]] = []
    rows: list[dict[str, object]] = []
    for place in config.embassies:
        head, proof = history.heads.get(place.name), proofs.get(place.name)
        seen = probed.load(config.state, place.name)
        immutable = None if seen is None else seen.immutable()
        fault = history.unreachable.get(place.name) or troubles.get(place.name) or ""
        reach = "unknown" if head is None else f"{head} of {history.head_sequence}"
        locked = "unknown" if immutable is None else "yes" if immutable else "no"
        told = (
            "never"
            if proof is None
            else f"{age(proof.at)} ago" + ("" if proof.good else ", and it was DAMAGED")
        )
        table.append((place.name, place.url or str(place.path), reach, locked, told))
        rows.append(
            {
                "embassy": place.name,
                "place": place.url or str(place.path),
                "snapshot": head,
                "immutable": immutable,
                "fault": fault or None,
                "proven": None
                if proof is None
                else {
                    "at": instants.to_text(proof.at),
                    "snapshot": proof.sequence,
                    "sample": proof.sample,
                    "good": proof.good,
                },
            }
        )
    call.out.table(("embassy", "place", "snapshot", "immutable", "last proven"), table)
    for row in rows:
        if row["fault"]:
            call.out.line(f"{row['embassy']}: {row['fault']}")
    call.out.document(register=register, id=asked.register, newest=history.head_sequence, copies=rows)
    if any(not proof.good for proof in proofs.values()):
        return 7
    return 3 if any(row["fault"] for row in rows) else 0
