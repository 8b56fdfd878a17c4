"""An approved request on the command line: the files that make it up, and the keyholder's session they open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.agents.keyholder_client import KeyholderClient
    from exclave.config import Config
    from exclave.flows.papers import Papers

_APPROVAL_LIMIT = 8 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """A session for one request, and who let it happen."""

    session: KeyholderClient
    papers: Papers
    custodians: tuple[str, ...]


def approved_request(verb: Callable[..., int | None]) -> Callable[..., int | None]:
    """The options of a verb that opens what custodians approved: --request and --approval."""
    verb = click.option(
        "--approval",
        "approvals",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="A custodian's answer. Repeat. By default every answer beside the request.",
    )(verb)
    return click.option(
        "--request",
        "request",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("request.exclave"),
        show_default=True,
        help="The file that `exclave request` wrote.",
    )(verb)


@contextmanager
def opened(config: Config, request: Path, approvals: tuple[Path, ...]) -> Generator[Opened]:
    """Join the key in a keyholder process, for as long as the block runs. Raises QuorumMissing, Refused, Tampered."""
    from exclave import wiring
    from exclave.agents.keyholder_client import KeyholderClient
    from exclave.flows.request import read, seed_file

    papers = wiring.papers(config)
    text = read(request)
    files = approvals or beside(request)
    notes = [read(path, _APPROVAL_LIMIT) for path in files]
    secret = seed_file(config.state, text)
    if not secret.exists():
        raise Misconfigured(
            "request-not-ours",
            f"{request} was not made here",
            why="the secret of its session is kept by the party that wrote it",
            hint="exclave request --help",
        )
    with KeyholderClient.open(papers, text, notes, secret) as session:
        yield Opened(session, papers, _names(papers, notes))


def beside(request: Path) -> tuple[Path, ...]:
    """Every answer in the folder of a request that is named after it."""
    found = [
        *request.parent.glob(f"{request.stem}.*.approval"),
        *request.parent.glob(f"{request.stem}.*.refusal"),
    ]
    return tuple(sorted(found))


def _names(papers: Papers, notes: list[bytes]) -> tuple[str, ...]:
    """Who approved, by the annex. The keyholder has judged the answers; this only puts names to them."""
    from exclave.custody import approval

    answers = [approval.verify(note, papers.charter) for note in notes]
    agreed = {answer.custodian for answer in answers if answer.verdict is approval.Verdict.APPROVE}
    return tuple(sorted(papers.annex.custodians[one] for one in agreed))
