"""`exclave explain`: an error id or a word in full."""

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


@click.command("explain", short_help="Explain an error or a word in full.")
@click.argument("topic", required=False)
@standard
def command(call: Call, topic: str | None) -> None:
    """Print what an error id or a word means, what is safe, and what to do. Without a topic: list them all."""
    known = texts()
    if topic is None:
        for key in sorted(known):
            call.out.line(key)
        call.out.document(topics=sorted(known))
        return
    if topic not in known:
        why = f"the word is not known{nearest(topic, known)}"
        raise NotThere(
            "no-explanation", f"There is nothing to explain {topic!r} with", why=why, hint="exclave explain"
        )
    call.out.line(f"{topic}\n\n{known[topic]}")
    call.out.document(id=topic, text=known[topic])
