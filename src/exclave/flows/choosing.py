"""Choosing the snapshot that a request names, from the commits that the embassies show."""

from __future__ import annotations

from collections.abc import Sequence

from exclave import instants
from exclave.custody.request import Request, Wanted
from exclave.errors import NotThere
from exclave.sealed.commits import Commit


def choose(commits: Sequence[Commit], wanted: Wanted, request: Request) -> Commit:
    """The newest commit of the wanted epoch that the request allows. Raises NotThere."""
    of_epoch = [commit for commit in commits if commit.epoch == wanted.epoch]
    if request.snapshot is not None:
        found = [commit for commit in of_epoch if commit.sequence == request.snapshot]
        wish = f"snapshot {request.snapshot}"
    elif request.at is not None:
        found = [commit for commit in of_epoch if commit.at <= request.at]
        wish = f"a snapshot not after {instants.to_text(request.at)}"
    else:
        found, wish = list(of_epoch), "any snapshot"
    if not found:
        have = ", ".join(str(commit.sequence) for commit in of_epoch[-8:]) or "none at all"
        raise NotThere(
            "no-such-snapshot",
            f"The embassies do not have {wish} of the register",
            why=f"of this sealing key they show {have}",
            hint="exclave status   # then a request for a snapshot that exists",
        )
    return max(found, key=lambda commit: (commit.term, commit.sequence))
