"""`exclave explain`: an error, or a finding of the doctor, in full."""

from __future__ import annotations

import tomllib
from importlib import resources

import click

from exclave.cli.options import Call, standard
from exclave.errors import NotThere
from exclave.settings import nearest


def texts() -> dict[str, str]:
    """Every explanation that ships with the product, by id."""
    found: dict[str, str] = {}
    for page in resources.files("exclave").joinpath("explanations").iterdir():
        if page.name.endswith(".toml"):
            for key, row in tomllib.loads(page.read_text(encoding="utf-8")).items():
                found[key] = str(row["text"]).strip()
    return found


@click.command("explain", short_help="Explain an error or a finding in full.")
@click.argument("topic", required=False)
@standard
def command(call: Call, topic: str | None) -> None:
    """Print what the id of an error or a finding means, what is safe, what to do. Without a topic: list them all."""
    known = texts()
    if topic is None:
        for key in sorted(known):
            call.out.line(key)
        call.out.document(topics=sorted(known))
        return
    if topic not in known:
        why = f"no error and no finding has this id{nearest(topic, known)}"
        raise NotThere(
            "no-explanation", f"There is no explanation of {topic!r}", why=why, hint="exclave explain"
        )
    call.out.text(f"{topic}\n\n{known[topic]}")
    call.out.document(id=topic, text=known[topic])
