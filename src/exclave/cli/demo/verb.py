"""`exclave demo`: the whole story on this machine, and its removal."""

from __future__ import annotations

from pathlib import Path

import click

from exclave.cli.options import Call, standard


@click.command("demo", short_help="Tell the whole story on this machine.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-realm"),
    show_default=True,
    help="Where it happens.",
)
@click.option("--clean", is_flag=True, help="Stop and remove everything that the demonstration made.")
@click.option("--small", is_flag=True, help="A hundredth of the data.")
@standard
def command(call: Call, folder: Path, clean: bool, small: bool) -> None:
    """Protect three registers of a fictional state, destroy its home, and start them abroad with a quorum.

    Everything is real but the data: PostgreSQL, SQLite, documents, keys, signatures, and every command shown.
    """
    from exclave.cli.demo import ground
    from exclave.cli.demo.home import Sizes
    from exclave.cli.demo.narration import Narrator
    from exclave.cli.demo.story import Story

    if clean:
        ground.clean(folder)
        call.out.line(f"{folder} is gone, and nothing that it started runs.")
        call.out.document(removed=str(folder))
        return
    sizes = Sizes(parcels=200, companies=80, documents=40) if small else Sizes()
    root = ground.prepare(folder).resolve()  # past the link: not everybody may follow it
    story = Story(root, Narrator(root, aside=call.out.as_json), sizes)
    facts = story.run()
    story.farewell(folder, facts["activation"])
    call.out.document(**facts)
