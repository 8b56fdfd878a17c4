"""The State Gazette of the demonstration: some thousand documents in folders by year."""

from __future__ import annotations

import hashlib
from datetime import date
from html import escape
from pathlib import Path

from exclave.cli.demo.fiction import COUNTRY, Fiction

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>State Gazette of the {country}, {day}, No. {number}</p>
{body}
</body></html>
"""
_KINDS = (
    "Act",
    "Regulation",
    "Decree",
    "Notice to creditors",
    "Notice of expropriation",
    "Appointment",
    "Correction",
)


def build(folder: Path, fiction: Fiction, documents: int) -> None:
    """Write the Gazette: HTML and plain text, a page of contents, and a link to the newest issue."""
    folder.mkdir(parents=True)
    names = [_write(folder, fiction, number, fiction.day()) for number in range(1, documents + 1)]
    _contents(folder, names)


def business(folder: Path, fiction: Fiction, documents: int, first: int) -> None:
    """An issue appears: new documents, and one earlier document is corrected."""
    names = [_write(folder, fiction, number, date(2026, 3, 2)) for number in range(first, first + documents)]
    _contents(folder, names)
    earlier = min(folder.glob("20*/*.html"))
    with earlier.open("a", encoding="utf-8") as stream:
        stream.write("<!-- corrected -->\n")


def check(folder: Path) -> dict[str, str]:
    """SHA-256 of each document (and the target of each link), by path."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _write(folder: Path, fiction: Fiction, number: int, day: date) -> str:
    draw = fiction.draw
    title = f"{draw.choice(_KINDS)} {number}/{day.year}"
    paragraphs = [fiction.sentence() for _ in range(draw.randint(3, 14))]
    plain = number % 5 == 0
    name = f"{day.year}/{number:05d}.{'txt' if plain else 'html'}"
    if plain:
        text = f"{title}\n{COUNTRY}, {day}\n\n" + "\n\n".join(paragraphs) + "\n"
    else:
        body = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs)
        text = _PAGE.format(title=title, country=COUNTRY, day=day, number=number, body=body)
    (folder / str(day.year)).mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return name


def _contents(folder: Path, names: list[str]) -> None:
    newest = sorted(names)[-40:]
    items = "\n".join(f'<li><a href="{name}">{name}</a></li>' for name in reversed(newest))
    body = f"<p>The newest documents:</p><ul>{items}</ul>"
    title = "State Gazette"
    text = _PAGE.format(title=title, country=COUNTRY, day="every working day", number="all", body=body)
    (folder / "index.html").write_text(text, encoding="utf-8")
    latest = folder / "latest"
    latest.unlink(missing_ok=True)
    latest.symlink_to(newest[-1])
