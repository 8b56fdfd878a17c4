"""An approved request on the command line: the files that make it up, and the keyholder's session they open."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.errors import ExclaveError, Misconfigured

if TYPE_CHECKING:
    from exclave.agents.keyholder_client import KeyholderClient
    from exclave.config import Config
    from exclave.flows.papers import Papers
    from exclave.types import Instant


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
def opened(
    config: Config, request: Path, approvals: tuple[Path, ...], say: Callable[[str], None]
) -> Generator[Opened]:
    """Join the key in a keyholder process, for as long as the block runs. Raises QuorumMissing, Refused, Tampered.

    Of the answers beside the request those that cannot count are left aside, and `say` is told; one that was named
    in `approvals` must count.
    """
    from exclave import wiring
    from exclave.agents.keyholder_client import KeyholderClient
    from exclave.custody.approval import MAX_APPROVAL_BYTES
    from exclave.flows.request import read, seed_file

    papers = wiring.papers(config)
    text = read(request)
    notes = [read(path, MAX_APPROVAL_BYTES) for path in approvals]
    secret = seed_file(config.state, text)
    if not secret.exists():
        raise Misconfigured(
            "request-not-ours",
            f"{request} was not made here",
            why="the secret of its session is kept by the party that wrote it",
            hint="exclave request --help",
        )
    if not approvals:
        notes = answers_beside(request, text, papers, say)
    with KeyholderClient.open(papers, text, notes, secret) as session:
        yield Opened(session, papers, _names(papers, notes))


def beside(request: Path) -> tuple[Path, ...]:
    """Every answer in the folder of a request that is named after it."""
    found = [
        *request.parent.glob(f"{request.stem}.*.approval"),
        *request.parent.glob(f"{request.stem}.*.refusal"),
    ]
    return tuple(sorted(found))


def answers_beside(request: Path, text: bytes, papers: Papers, say: Callable[[str], None]) -> list[bytes]:
    """One answer of each custodian, his newest. Anybody may put any file there, and it must not hold up the others."""
    from exclave.custody import approval
    from exclave.custody import request as requests
    from exclave.flows.request import read

    asked = requests.parse(text)
    found: dict[str, tuple[Instant, Path, bytes]] = {}
    for path in beside(request):
        note = b""
        try:
            note = read(path, approval.MAX_APPROVAL_BYTES)
            answer = approval.verify(note, papers.charter)
            approval.check(answer, asked)
        except ExclaveError as error:
            say(f"left aside: {path.name}{_signer(note, papers)}: {error}")
            continue
        person, worse = answer.custodian, path
        before = found.get(person)
        if before is None or answer.at > before[0]:
            found[person] = (answer.at, path, note)
            worse = path if before is None else before[1]
        if before is not None:
            kept = found[person][1].name
            say(f"left aside: {worse.name}: {papers.annex.custodians[person]} counts once, by {kept}")
    return [note for _at, _path, note in found.values()]


def _signer(note: bytes, papers: Papers) -> str:
    """Who an answer says that it is of, for people; his signature was not proven."""
    from exclave.crypto import sign

    try:
        pseudonym = sign.split(note)[1][0][0]
    except ExclaveError:
        return ""
    name = papers.annex.custodians.get(pseudonym)
    return f" (says it is of {name})" if name is not None else ""


def _names(papers: Papers, notes: list[bytes]) -> tuple[str, ...]:
    """Who approved, by the annex. The keyholder has judged the answers; this only puts names to them."""
    from exclave.custody import approval

    answers = [approval.verify(note, papers.charter) for note in notes]
    agreed = {answer.custodian for answer in answers if answer.verdict is approval.Verdict.APPROVE}
    return tuple(sorted(papers.annex.custodians[one] for one in agreed))
