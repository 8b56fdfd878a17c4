"""`exclave ceremony`: custodians, shares and the charter; later, keys for registers that were added."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.cli.options import Call, standard
from exclave.cli.words import now, plural
from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.config import Config
    from exclave.flows.ceremony import Held, Home
    from exclave.stores.base import Store

PATIENCE_SECONDS = 10.0


@click.command("ceremony", short_help="Make the custodians' keys and shares, and the realm's charter.")
@click.option("--custodian", "people", multiple=True, metavar="NAME", help="A new custodian. Repeat.")
@click.option("--threshold", type=int, help="How many must agree. More than half by default.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("custodians"),
    show_default=True,
    help="Where each custodian's folder is made.",
)
@click.option(
    "--as",
    "present",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(path_type=Path, file_okay=False),
    help="A custodian who is present with his folder, to add registers to the realm. Repeat.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be made, and make nothing.")
@standard
def command(
    call: Call,
    *,
    people: tuple[str, ...],
    threshold: int | None,
    out: Path,
    present: tuple[Path, ...],
    dry_run: bool,
) -> int:
    """Make a realm: a key for each register, split among new custodians so that a threshold of them opens it.

    Later, with --as, the custodians present sign a new charter that has the registers and embassies added since.
    Run it on a machine that is offline and wiped afterwards: while it runs, it knows every key.
    """
    if bool(people) == bool(present):
        raise Misconfigured(
            "ceremony-how",
            "It is not clear which ceremony this is",
            why="the first takes --custodian NAME for each, later ones --as FOLDER for each who is present",
            hint="exclave ceremony --help",
        )
    config = call.config()
    config.at_home()
    needed = threshold if threshold is not None else len(people) // 2 + 1
    if dry_run:
        return _rehearse(call, config, people, needed)
    held = _first(call, config, people, needed, out) if people else _later(config, present, out)
    return _tell(call, config, held, out, people)


def _first(call: Call, config: Config, people: tuple[str, ...], threshold: int, out: Path) -> Held:
    from exclave.cli.configfile import pin_realm
    from exclave.flows import ceremony

    held = ceremony.hold(
        realm=config.realm.name,
        people=people,
        threshold=threshold,
        registers={row.id: row.name for row in config.registers},
        home=_home(config),
        out=out,
        stores=_stores(config),
        now=now(),
    )
    pin_realm(call.file, held.papers.history.realm)
    call.forget()
    return held


def _later(config: Config, present: tuple[Path, ...], out: Path) -> Held:
    from exclave import wiring
    from exclave.flows import ceremony
    from exclave.flows.custodian import sit_down

    papers, stores = wiring.papers(config), _stores(config)
    desks = [sit_down(folder) for folder in present]
    lacking = {row.id: row.name for row in config.registers if row.id not in papers.annex.registers}
    if not lacking and set(stores) <= set(papers.annex.embassies):
        return ceremony.hand_out(present=desks, papers=papers, stores=stores)
    return ceremony.extend(
        present=desks,
        registers=lacking,
        papers=papers,
        home=_home(config),
        out=out,
        stores=stores,
        now=now(),
    )


def _home(config: Config) -> Home:
    from exclave.flows.ceremony import Home

    return Home(config.at_home().keys, config.realm.charter, config.realm.annex)


def _stores(config: Config) -> dict[str, Store]:
    from exclave import wiring

    return {row.name: wiring.store(row, patience_seconds=PATIENCE_SECONDS) for row in config.embassies}


def _rehearse(call: Call, config: Config, people: tuple[str, ...], threshold: int) -> int:
    names = [row.name for row in config.registers]
    if people:
        call.out.line(
            f"would make realm {config.realm.name}: {threshold} of {len(people)} custodians must agree"
        )
    call.out.line(f"would make keys for those of {', '.join(names) or 'no register'} that have none")
    call.out.line(
        f"would bring the papers to {', '.join(row.name for row in config.embassies) or 'no embassy'}"
    )
    call.out.document(dry_run=True, custodians=list(people), threshold=threshold, registers=names)
    return 0


def _tell(call: Call, config: Config, held: Held, out: Path, people: tuple[str, ...]) -> int:
    charter, annex = held.papers.charter, held.papers.annex
    call.out.line(f"realm {annex.realm}: {charter.realm}")
    call.out.line(
        f"charter {charter.version}: {charter.threshold} of {len(charter.custodians)} custodians must agree; "
        f"{plural(len(annex.registers), 'register')}"
    )
    for register in held.added:
        call.out.line(
            f"  {annex.registers[register]}: a new key, split {len(charter.custodians)} ways; every share proven"
        )
    for name in people:
        call.out.line(f"  {name}: {out / name}")
    reached = [row.name for row in config.embassies if row.name not in held.unreached]
    call.out.line(f"papers are at {', '.join(reached) or 'no embassy yet'}")
    for name, error in sorted(held.unreached.items()):
        call.out.line(f"  {name} was not reached: {error}; bring them with exclave ceremony --as FOLDER")
    if people:
        call.out.line(
            f"Next: give each custodian his folder, on his own medium, and remove {out} from this machine."
        )
        call.out.line("Print the realm's id where everybody can read it: all trust begins there.")
    call.out.line(f"Then: exclave {'protect' if reached else 'embassy add --help'}")
    call.out.document(
        realm=charter.realm,
        charter=charter.version,
        threshold=charter.threshold,
        custodians=[{"id": one.id, "name": annex.custodians[one.id]} for one in charter.custodians],
        added=[annex.registers[register] for register in held.added],
        folders={name: str(out / name) for name in people},
        reached=reached,
        unreached={name: error.id for name, error in held.unreached.items()},
        transcript=held.transcript.decode(),
    )
    return 3 if held.unreached else 0
