"""`exclave approve`: one custodian's answer to a request."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave import instants
from exclave.cli.options import Call, standard
from exclave.cli.words import now
from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.flows.approve import Considered


@click.command("approve", short_help="Approve or refuse a request, with one custodian's key.")
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--as",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Your folder from the ceremony.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the answer; beside the request by default.",
)
@click.option("--refuse", is_flag=True, help="Sign a refusal. It blocks nobody else.")
@click.option("--reason", help="Why it is refused.")
@click.option("--unnamed-embassy", is_flag=True, help="Agree although the annex does not name who asks.")
@click.option("--yes", is_flag=True, help="Do not ask for the realm's name.")
@click.option("--dry-run", is_flag=True, help="Say what would be signed, and sign nothing.")
@standard
def command(
    call: Call,
    *,
    request: Path,
    folder: Path,
    out: Path | None,
    refuse: bool,
    reason: str | None,
    unnamed_embassy: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Judge REQUEST by your own papers, say what a signature will do, and sign an approval or a refusal.

    Compare the fingerprint with the one that the embassy reads to you by telephone before you agree.
    """
    from exclave.flows import approve as flow
    from exclave.flows.custodian import sit_down
    from exclave.flows.papers import create
    from exclave.flows.request import read

    if refuse == (reason is None):
        raise Misconfigured(
            "refusal-how",
            "A refusal has a reason, an approval has none",
            why="--refuse and --reason go together",
            hint="exclave approve --help",
        )
    desk = sit_down(folder)
    considered = flow.consider(desk, read(request), now())
    out = out or request.with_name(f"{request.stem}.{desk.name}.{'refusal' if refuse else 'approval'}")
    if not dry_run and out.exists():
        raise Misconfigured(
            "file-exists",
            f"{out} exists already",
            why=f"{desk.name} has answered this request, and nothing is overwritten",
            hint="send that file, or give --out ANOTHER",
        )
    if dry_run:
        call.out.line(considered.sentence())
        call.out.line(f"fingerprint: {considered.request.fingerprint}")
        _document(call, considered, out, signed=False, verdict="refuse" if refuse else "approve")
        return
    if refuse:
        answer = flow.refuse(considered, now=now(), reason=reason or "")
    else:
        call.out.say(f"fingerprint: {considered.request.fingerprint}")
        if yes:
            call.out.say(f"{considered.sentence()}.")
        call.out.confirm(desk.papers.annex.realm, considered.sentence(), yes=yes)
        answer = flow.approve(considered, now=now(), unnamed_embassy=unnamed_embassy)
    create(out, answer)
    call.out.line(
        f"{desk.name} {'refused' if refuse else 'approved'} {considered.request.fingerprint}: {out}"
    )
    use = "it blocks nobody else" if refuse else "it opens nothing for anyone else"
    call.out.line(f"Next: send this file to the embassy that asked; {use}.")
    _document(call, considered, out, signed=True, verdict="refuse" if refuse else "approve")


def _document(call: Call, considered: Considered, out: Path, *, signed: bool, verdict: str) -> None:
    request = considered.request
    call.out.document(
        signed=signed,
        verdict=verdict,
        custodian=considered.desk.id,
        name=considered.desk.name,
        request=request.hash,
        fingerprint=request.fingerprint,
        registers=list(considered.registers),
        embassy=considered.embassy,
        not_after=instants.to_text(request.not_after),
        file=str(out) if signed else None,
    )
