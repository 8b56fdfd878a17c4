"""`exclave embassy`: the places abroad."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from exclave.cli.configfile import add as write
from exclave.cli.options import Call, standard
from exclave.cli.words import clock
from exclave.config import EmbassyConfig
from exclave.errors import Misconfigured

_SCHEMES = {"s3": "s3", "az": "azure", "gs": "gcs"}


@click.group("embassy", short_help="Add and list the places abroad.")
def command() -> None:
    """Add and list the places abroad, and probe what they guarantee."""


@command.command("add")
@click.argument("name")
@click.argument("place", metavar="FOLDER|URL")
@click.option(
    "--endpoint", default="", help="Address of the object store, when it is not the provider's own."
)
@click.option("--region", default="", help="Region of the bucket.")
@click.option("--credentials-file", type=click.Path(path_type=Path), help="A file of mode 0600.")
@click.option(
    "--allow-http", is_flag=True, help="Speak to the object store without TLS: a test, a private line."
)
@click.option("--rate-limit", default=0, metavar="BYTES", help="Bytes per second; 0 for no limit.")
@click.option("--no-probe", is_flag=True, help="Only write the settings; for a party that may only read.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@standard
def add(
    call: Call,
    *,
    name: str,
    place: str,
    endpoint: str,
    region: str,
    credentials_file: Path | None,
    allow_http: bool,
    rate_limit: int,
    no_probe: bool,
    dry_run: bool,
) -> int:
    """Add an embassy: a FOLDER (create-only, fsynced), or s3://, az:// or gs:// bucket and prefix."""
    scheme = urlsplit(place).scheme
    row: dict[str, str | int | bool | list[str]] = {"name": name, "kind": _SCHEMES.get(scheme, "directory")}
    if scheme in _SCHEMES:
        if credentials_file is None:
            hint = "the same with --credentials-file FILE"
            raise Misconfigured(
                "no-credentials", f"{place} needs credentials", why="they are read from a file", hint=hint
            )
        fields: dict[str, str | bool] = {
            "url": place,
            "endpoint": endpoint,
            "region": region,
            "allow_http": allow_http,
        }
        row |= {key: value for key, value in fields.items() if value}
        row["credentials_file"] = str(credentials_file.absolute())
    else:
        row["path"] = os.path.abspath(place)
    if rate_limit:
        row["rate_limit"] = rate_limit
    if dry_run:
        call.out.line(f"would add embassy {name} ({row['kind']}) to {call.file}")
        call.out.document(embassy=row, dry_run=True)
        return 0
    write(call.file, "embassy", row)
    call.forget()
    call.out.line(f"embassy {name} ({row['kind']}) is added.")
    probed = None if no_probe else _probe(call, call.config().embassy(name))
    if call.config().home is not None and call.config().realm.id is not None:
        call.out.line("Next: exclave ceremony --as FOLDER, which brings it the realm's papers.")
    elif call.config().home is not None and len(call.config().embassies) >= call.config().at_home().copies:
        call.out.line("Next: another embassy, or exclave ceremony --help, which makes keys and custodians.")
    elif call.config().home is not None:
        call.out.line(
            "Next: another embassy: a snapshot has to be at " + f"{call.config().at_home().copies}."
        )
    call.out.document(embassy=row, dry_run=False, probe=probed)
    return 0


@command.command("list")
@click.option("--probe", "again", is_flag=True, help="Probe every store again now.")
@standard
def list_(call: Call, again: bool) -> None:
    """List the embassies, and what their stores were seen to guarantee."""
    from exclave.embassies import probed as probes

    config = call.config()
    rows: list[tuple[str, ...]] = []
    documents: list[dict[str, object]] = []
    for row in config.embassies:
        if again:
            _probe(call, row, quiet=True)
        seen = probes.load(config.state, row.name)
        guarantees = ", ".join(seen.kept) if seen else "unknown"
        immutable = ("yes" if seen.immutable() else "no") if seen else "unknown"
        where = row.url or str(row.path)
        rows.append((row.name, row.kind, where, guarantees, immutable, clock(seen.at) if seen else "never"))
        documents.append(
            {
                "name": row.name,
                "kind": row.kind,
                "place": where,
                "kept": list(seen.kept) if seen else None,
                "broken": seen.broken if seen else None,
                "immutable": seen.immutable() if seen else None,
            }
        )
    call.out.table(("embassy", "kind", "place", "seen to guarantee", "immutable", "probed"), rows)
    call.out.document(embassies=documents)


def _probe(call: Call, row: EmbassyConfig, *, quiet: bool = False) -> dict[str, object]:
    from exclave import wiring
    from exclave.cli.words import now
    from exclave.embassies import probed as probes

    config = call.config()
    wiring.prepare(row)
    seen = probes.save(config.state, row.name, wiring.probe(row), now())
    if not quiet:
        call.out.line(f"  seen to guarantee: {', '.join(seen.kept) or 'nothing'}")
        for guarantee, why in sorted(seen.broken.items()):
            call.out.line(f"  not {guarantee}: {why}")
        if not seen.immutable():
            call.out.line(
                "  It is not counted as immutable: whoever holds this store could delete what is there."
            )
        if not set(seen.kept) >= probes.NEEDED:
            call.out.line("  It lacks what an embassy needs. Next: choose another store, or mend this one.")
    return {"kept": list(seen.kept), "broken": seen.broken, "immutable": seen.immutable()}
