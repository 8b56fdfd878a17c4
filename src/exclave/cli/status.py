"""`exclave status`: one sentence, then each register. Never green without fresh proof; what is not known says so."""

from __future__ import annotations

from dataclasses import dataclass

import click

from exclave import instants
from exclave.cli.options import Call, standard
from exclave.cli.progress import span
from exclave.cli.words import SECOND, age, clock, now
from exclave.config import Config
from exclave.embassies.proven import Proof
from exclave.errors import Misconfigured
from exclave.flows.status import Asked, Standing, Verdict

FRESH_SECONDS = 7 * 86_400
_COLOURS = {"protected": "green", "unproven": "yellow", "thin": "yellow", "unknown": "magenta"}
_ORDER = ["protected", "unproven", "thin", "unknown", "unprotected", "damaged", "rolled back"]
_EXIT = {"protected": 0, "unproven": 3, "thin": 3, "unprotected": 1, "rolled back": 7, "unknown": 8}


@dataclass(frozen=True, slots=True)
class Row:
    """A register's standing, and the oldest proof among the copies of its newest snapshot."""

    standing: Standing
    proofs: dict[str, Proof]

    def proven(self) -> Proof | None:
        """The newest proof, of every byte, among the copies that hold the newest snapshot."""
        known = [self.proofs[name] for name in self.standing.holders if name in self.proofs]
        return max((one for one in known if one.whole()), key=lambda proof: proof.at, default=None)

    def word(self) -> str:
        """The verdict in one word; green only with a fresh proof of every byte of one copy."""
        if any(not proof.good for proof in self.proofs.values()):
            return "damaged"
        if self.standing.verdict is not Verdict.PROTECTED:
            return str(self.standing.verdict)
        proof = self.proven()
        fresh = proof is not None and (now() - proof.at) / SECOND <= FRESH_SECONDS
        return "protected" if fresh else "unproven"


@click.command("status", short_help="Say what can be restored, to when, from where.")
@standard
def command(call: Call) -> int:
    """Say in one sentence what can be restored, to when and from where; then each register.

    Exit code 0 only when every register is at enough embassies and was proven within a week.
    """
    from concurrent.futures import ThreadPoolExecutor

    from exclave import wiring
    from exclave.embassies import proven
    from exclave.flows.status import look

    config = call.config()
    asked = wiring.asked(config)
    if not asked:
        hint = "exclave register add --help"
        why = f"{config.file} names no register"
        raise Misconfigured("no-registers", "There is nothing to tell about", why=why, hint=hint)
    embassies = wiring.embassies(config, patience_seconds=2.0)
    copies = config.home.copies if config.home else 1
    with ThreadPoolExecutor(4, "status") as pool:
        looks = [pool.submit(look, one, embassies, copies=copies) for one in asked]
        rows = [
            Row(standing.result(), proven.load(config.state, one.register))
            for one, standing in zip(asked, looks, strict=True)
        ]
    _remember(config, asked, rows)
    worst = max((row.word() for row in rows), key=_ORDER.index)
    sentence = _sentence(rows, worst, len(embassies), at_home=config.home is not None)
    call.out.line(sentence, colour=_COLOURS.get(worst, "red"))
    call.out.line()
    call.out.table(
        ("register", "state", "snapshot", "restores to", "age", "copies", "behind", "gaps", "last proven"),
        [_cells(row, len(embassies)) for row in rows],
    )
    for row in rows:
        for name, why in sorted(row.standing.behind.items()):
            call.out.line(f"{row.standing.name}: {name} {why}")
    call.out.document(verdict=worst, sentence=sentence, registers=[_fields(row) for row in rows])
    return _EXIT.get(worst, 7)


def _remember(config: Config, asked: list[Asked], rows: list[Row]) -> None:
    """A party that is not home notes what it saw: the next look is cheaper, and tells when less is shown."""
    from exclave import positions, wiring
    from exclave.positions import Position

    for one, row in zip(asked, rows, strict=True):
        newest, at = row.standing.newest, row.standing.at
        if config.home is not None or newest is None or at is None:
            continue
        if one.remembered is None or newest.sequence > one.remembered.sequence:
            seen = Position(
                epoch="",
                term=newest.term,
                sequence=newest.sequence,
                commit_hash=newest.id,
                at=at,
                gaps=row.standing.gaps,
                manifest=(),
                depth=0,
                next_pack=0,
            )
            positions.save(wiring.seen(config, one.register), seen)


def _sentence(rows: list[Row], worst: str, embassies: int, *, at_home: bool) -> str:
    """The verdict, as a person would say it."""
    bad = [row.standing.name for row in rows if row.word() == worst]
    whose = "Every register" if len(bad) == len(rows) else f"{', '.join(bad)}:"
    if worst in {"protected", "unproven"}:
        moment = clock(min(row.standing.at for row in rows if row.standing.at is not None))
        held = min(len(row.standing.holders) for row in rows)
        proofs = [row.proven() for row in rows]
        oldest = min((proof.at for proof in proofs if proof is not None), default=None)
        if worst == "protected" and oldest is not None:
            newer = any(
                proof is not None and proof.sequence < row.standing.sequence
                for row, proof in zip(rows, proofs, strict=True)
            )
            yet = ", and not yet for what was sent since: exclave verify" if newer else ""
            return (
                f"Every register can be restored to {moment} from {held} of {embassies} embassies; "
                f"last proven {age(oldest)} ago{yet}."
            )
        said = "never proven" if None in proofs or oldest is None else f"last proven {age(oldest)} ago"
        return (
            f"Every register is held, to {moment}, by {held} of {embassies} embassies, but that is {said}: "
            "exclave verify."
        )
    mend = ": exclave protect." if at_home else "; home can mend that."
    return {
        "thin": f"{whose} can be restored, but from fewer embassies than it should be{mend}",
        "unknown": f"{whose} unknown: no embassy answers. That is not a good state: exclave doctor.",
        "unprotected": f"{whose} CANNOT be restored: no snapshot is abroad{mend}",
        "damaged": f"{whose} has a copy that is not what was written: exclave verify.",
        "rolled back": f"{whose} the embassies show less than was there. Stop, and find out why: exclave where.",
    }[worst]


def _cells(row: Row, embassies: int) -> tuple[str, ...]:
    standing, proof = row.standing, row.proven()
    earlier = proof is not None and proof.sequence < standing.sequence
    return (
        standing.name,
        row.word(),
        str(standing.sequence) if standing.sequence else "none",
        clock(standing.at) if standing.at is not None else "unknown",
        age(standing.at) if standing.at is not None else "unknown",
        f"{len(standing.holders)} of {embassies}",
        ", ".join(sorted(standing.behind)) or "-",
        str(standing.gaps),
        "never"
        if proof is None
        else f"{span(max(0, (now() - proof.at) / SECOND))} ago"
        + (f", to {proof.sequence}" if earlier else ""),
    )


def _fields(row: Row) -> dict[str, object]:
    standing, proof = row.standing, row.proven()
    return {
        "register": standing.name,
        "state": row.word(),
        "snapshot": standing.sequence,
        "restores_to": instants.to_text(standing.at) if standing.at is not None else None,
        "holders": list(standing.holders),
        "behind": standing.behind,
        "gaps": standing.gaps,
        "why": standing.why,
        "proven": None
        if proof is None
        else {"at": instants.to_text(proof.at), "snapshot": proof.sequence, "sample": proof.sample},
    }
