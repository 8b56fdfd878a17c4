"""`exclave doctor`: look for what would fail later. Each finding has an id, the cause, and the next command."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exclave.cli.options import Call, standard
from exclave.cli.progress import size
from exclave.cli.words import plural
from exclave.errors import ExclaveError

if TYPE_CHECKING:
    from exclave.config import Config
    from exclave.registers.base import Finding

_ROOM_BYTES = 2 << 30
_MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}


@click.command("doctor", short_help="Look for what would fail later; change nothing.")
@standard
def command(call: Call) -> int:
    """Check settings, secrets, papers, sources, embassies and what an activation would need.

    Changes nothing, but for a small probe object that each embassy keeps.
    """
    config = call.config()
    rows: list[tuple[str, Finding]] = []
    for subject, look in _looks(config):
        rows += [(subject, _elsewhere(finding)) for finding in _caught(look)]
    for subject, finding in rows:
        call.out.line(f"{_MARKS[finding.level]} {subject}: {' '.join(finding.text.split())}  [{finding.id}]")
        if finding.level != "ok" and finding.hint:
            call.out.line(f"     next: {finding.hint}")
    worst = [finding.level for _subject, finding in rows]
    failed, warned = worst.count("fail"), worst.count("warn")
    call.out.line(f"{plural(len(rows), 'check')}: {failed} failed, {warned} to look at.")
    call.out.document(
        findings=[
            {"subject": subject, "id": f.id, "level": f.level, "text": f.text, "next": f.hint}
            for subject, f in rows
        ]
    )
    return 1 if failed else 3 if warned else 0


def _looks(config: Config) -> Iterator[tuple[str, Callable[[], list[Finding]]]]:
    from exclave import wiring

    yield "secrets", partial(_secrets, config)
    yield "papers", partial(_papers, config)
    yield "copies", partial(_copies, config)
    yield "state folder", partial(_room, config.state)
    for row in config.registers:
        yield f"register {row.name}", partial(_register, config, row.name)
    for place in config.embassies:
        yield f"embassy {place.name}", partial(wiring.embassy_findings, config, place)
    yield "activation", partial(_activation, config)


def _caught(look: Callable[[], list[Finding]]) -> list[Finding]:
    from exclave.registers.base import Finding

    try:
        return look()
    except ExclaveError as error:
        return [Finding(error.id, "fail", str(error), error.hint)]


def _elsewhere(finding: Finding) -> Finding:
    """Who is told to ask the doctor has done so: the explanation says more."""
    return (
        replace(finding, hint=f"exclave explain {finding.id}")
        if finding.hint == "exclave doctor"
        else finding
    )


def _register(config: Config, name: str) -> list[Finding]:
    from exclave import wiring

    return wiring.register(config, name).doctor()


def _secrets(config: Config) -> list[Finding]:
    from exclave import wiring
    from exclave.registers.base import Finding

    wiring.check_secrets(config)
    return [Finding("secrets-kept", "ok", "every secret file is ours alone")]


def _papers(config: Config) -> list[Finding]:
    from exclave import wiring
    from exclave.registers.base import Finding

    papers = wiring.papers(config)
    known = {entry.id for entry in papers.charter.registers}
    found = [Finding("papers-verified", "ok", f"charter {papers.charter.version} and the annex are verified")]
    for row in config.registers:
        if row.id not in known:
            text = f"register {row.name} is in the settings but not in the charter, so it is not protected"
            found.append(Finding("register-uncovered", "fail", text, "exclave ceremony --help"))
    return found


def _copies(config: Config) -> list[Finding]:
    from exclave.registers.base import Finding

    there = len(config.embassies)
    if config.home is None:
        if there:
            return [Finding("copies-named", "ok", f"{plural(there, 'place')} to restore from")]
        return [Finding("copies-nowhere", "fail", "no embassy is named", "exclave embassy add --help")]
    wanted = config.home.copies
    if there < wanted:
        text = f"{wanted} embassies must hold a snapshot, and {there} are named: none can ever count"
        return [Finding("copies-impossible", "fail", text, "exclave embassy add --help")]
    if there == wanted:
        text = f"all {there} embassies must answer for a snapshot to count: one that is dark stops it"
        return [Finding("copies-no-spare", "warn", text, "exclave embassy add --help")]
    if wanted == 1:
        text = f"a snapshot counts when 1 of {there} embassies holds it: its loss would be the snapshot's"
        return [Finding("copies-single", "warn", text, f"set copies = 2 under [home] in {config.file}")]
    return [Finding("copies-possible", "ok", f"{wanted} of {there} embassies must hold a snapshot")]


def _room(folder: Path) -> list[Finding]:
    from exclave.registers.base import Finding

    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < _ROOM_BYTES:
        return [Finding("room-short", "warn", f"only {size(free)} are free at {there}", f"df -h {there}")]
    return [Finding("room-enough", "ok", f"{size(free)} are free")]


def _activation(config: Config) -> list[Finding]:
    from exclave.registers.base import Finding
    from exclave.registers.postgres import binaries

    majors = [config.activation.postgres] if config.activation.postgres else binaries.available()
    if majors:
        text = f"PostgreSQL {', '.join(map(str, majors))} can be started here"
        return [Finding("postgres-here", "ok", text)]
    level = "warn" if config.home is None or any(row.kind == "postgres" for row in config.registers) else "ok"
    return [
        Finding(
            "postgres-absent",
            level,
            "no PostgreSQL is installed here to start one",
            "apt-get install postgresql",
        )
    ]
