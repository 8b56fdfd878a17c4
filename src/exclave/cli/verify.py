"""`exclave verify`: every stored byte abroad against what the signed commits say. Needs no key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.cli.words import now

if TYPE_CHECKING:
    from exclave.config import Config
    from exclave.flows.status import Asked
    from exclave.flows.verification import Report
    from exclave.types import Instant

SAFE = "safe to interrupt: nothing is changed"
_EXIT = {"good": 0, "unknown": 0, "bad": 7}


@click.command("verify", short_help="Check every stored byte abroad, without any key.")
@click.option(
    "--sample", type=click.FloatRange(0, 1, min_open=True), help="Read only this part of the sealed objects."
)
@standard
def command(call: Call, sample: float | None) -> int:
    """Check chain, signatures, SHA-256 and shape of everything in every embassy, and note when that was proven.

    A sample finds what was replaced everywhere or at random; only a full run proves each byte.
    """
    from exclave import wiring
    from exclave.flows.verify import verify

    config, at = call.config(), now()
    asked = wiring.asked(config)
    with call.out.progress(safe=SAFE) as board:
        task = board.task("verify")
        writers = [(one.register, one.writers) for one in asked]
        report = verify(wiring.embassies(config), writers, sample=sample, told=task, realm=config.realm.id)
        task.finish()
    _note(config, asked, report, at)
    _tell(call, report)
    call.out.document(**report.document())
    return 8 if report.unreachable and report.verdict != "bad" else _EXIT[report.verdict]


def _note(config: Config, asked: list[Asked], report: Report, at: Instant) -> None:
    """An embassy with a problem proves nothing; one that did not answer keeps its last proof."""
    from exclave.embassies import proven
    from exclave.embassies.proven import Proof

    bad = {problem.embassy for problem in report.problems}
    for one in asked:
        proofs = {
            looked.name: Proof(
                at, looked.heads.get(one.register, 0), report.sample or 1.0, looked.name not in bad
            )
            for looked in report.embassies
            if looked.name not in report.unreachable
        }
        proven.save(config.state, one.register, proofs)


def _tell(call: Call, report: Report) -> None:
    bad = {problem.embassy for problem in report.problems}
    call.out.table(
        ("embassy", "verdict", "objects", "bytes", "read", "unnamed"),
        [
            (
                looked.name,
                "BAD" if looked.name in bad else "unknown" if looked.name in report.unreachable else "good",
                str(looked.objects),
                size(looked.bytes),
                size(looked.read_bytes),
                str(looked.unnamed),
            )
            for looked in report.embassies
        ],
    )
    for problem in report.problems:
        call.out.line(f"{problem.embassy}: {problem.path}: {problem.why}  [{problem.id}]")
    for name, why in sorted(report.unreachable.items()):
        call.out.line(f"{name} is unknown: {why}")
    said = {
        "good": "Every byte in every embassy is what was written.",
        "unknown": "Nothing is wrong in what was read; the rest is unknown.",
        "bad": "Something is not what was written. Nothing was changed; the good copies can still be restored.",
    }
    call.out.line(said[report.verdict])
