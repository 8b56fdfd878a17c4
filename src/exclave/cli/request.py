"""`exclave request`: ask the custodians to open registers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave import instants
from exclave.cli.options import Call, standard
from exclave.cli.words import clock, instant, now, seconds
from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.config import Config
    from exclave.flows.papers import Papers

PATIENCE_SECONDS = 10.0


@click.command("request", short_help="Ask the custodians to open registers, in one place, until a deadline.")
@click.argument("registers", nargs=-1, required=True, metavar="REGISTER...")
@click.option("--at", "moment", metavar="TIME", help="As of this moment; the newest snapshot by default.")
@click.option("--snapshot", type=click.IntRange(min=1), help="This snapshot of one register.")
@click.option("--reason", required=True, help="What the custodians will read.")
@click.option("--valid", default="72h", show_default=True, help="For how long; then the key is forgotten.")
@click.option("--embassy", help="Which embassy asks. Not needed when the settings name only one.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("request.exclave"),
    show_default=True,
)
@standard
def command(
    call: Call,
    *,
    registers: tuple[str, ...],
    moment: str | None,
    snapshot: int | None,
    reason: str,
    valid: str,
    embassy: str | None,
    out: Path,
) -> None:
    """Write a request for REGISTERs to a file that the custodians get, and its secret into this party's state."""
    from exclave.flows.request import ask

    if out.exists():
        raise Misconfigured(
            "file-exists",
            f"{out} exists already",
            why="it may be an earlier request, and nothing is overwritten",
            hint="the same with --out ANOTHER.exclave, in a folder of its own",
        )
    config = call.config()
    present = now()
    asked = ask(
        _papers(config),
        registers=registers,
        embassy=_embassy(config, embassy),
        reason=reason,
        valid_seconds=seconds(valid),
        out=out,
        state=config.state,
        now=present,
        at=None if moment is None else instant(moment),
        snapshot=snapshot,
    )
    request = asked.request
    call.out.line(f"{out} asks for {', '.join(registers)} until {clock(request.not_after)}")
    call.out.line(f"fingerprint: {request.fingerprint}")
    call.out.line("Next: send it to the custodians and read the fingerprint to each of them by telephone.")
    call.out.line(f"Each answers with: exclave approve {out.name} --as FOLDER")
    call.out.document(
        file=str(out),
        request=request.hash,
        fingerprint=request.fingerprint,
        registers=list(registers),
        not_after=instants.to_text(request.not_after),
        secret=str(asked.seed_file),
    )


def _papers(config: Config) -> Papers:
    """The party's own papers; one that has only the realm's id and the annex gets the rest from the embassies."""
    from exclave import wiring
    from exclave.flows import papers

    if config.realm.id is None or not config.embassies or (config.realm.charter / f"{1:08x}.note").exists():
        return wiring.papers(config)
    stores = [wiring.store(row, patience_seconds=PATIENCE_SECONDS) for row in config.embassies]
    found = papers.fetch_newest(stores, config.realm.id, config.realm.annex)
    papers.save(found, config.realm.charter, config.realm.annex)
    return found


def _embassy(config: Config, name: str | None) -> str:
    if name is not None:
        return name
    if len(config.embassies) == 1:
        return config.embassies[0].name
    raise Misconfigured(
        "embassy-unsaid",
        "It is not said which embassy asks",
        why="the settings name none or several, and the custodians decide by it",
        hint="the same with --embassy NAME",
    )
