"""The business register of the demonstration: a SQLite database that is written to while it is protected."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from exclave.cli.demo.fiction import Fiction

_SCHEMA = """
pragma journal_mode = wal;
create table company (id integer primary key, code text not null unique, name text not null, form text not null,
  seat text not null, capital_cents integer not null, entered_on text not null, struck_off_on text);
create table officer (id integer primary key, company_id integer not null references company, name text not null,
  office text not null, since text not null);
create table filing (id integer primary key, company_id integer not null references company, kind text not null,
  filed_on text not null, summary text not null);
create index officer_company on officer (company_id);
create index filing_company on filing (company_id);
"""
TABLES = ("company", "officer", "filing")


def build(path: Path, fiction: Fiction, companies: int) -> None:
    """Make the database: about four rows a company."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_SCHEMA)
        with database:
            database.executemany(
                "insert into company values (?, ?, ?, ?, ?, ?, ?, ?)",
                (_company(fiction, at) for at in range(1, companies + 1)),
            )
            database.executemany(
                "insert into officer values (null, ?, ?, ?, ?)",
                (_officer(fiction, companies) for _ in range(companies * 2)),
            )
            database.executemany(
                "insert into filing values (null, ?, ?, ?, ?)",
                (_filing(fiction, companies) for _ in range(companies)),
            )


def business(path: Path, fiction: Fiction, companies: int, filings: int) -> None:
    """A day: filings arrive, officers change."""
    with closing(sqlite3.connect(path)) as database, database:
        for _ in range(filings):
            database.execute("insert into filing values (null, ?, ?, ?, ?)", _filing(fiction, companies))
            database.execute("insert into officer values (null, ?, ?, ?, ?)", _officer(fiction, companies))


def check(path: Path) -> dict[str, tuple[int, str]]:
    """Rows and a checksum of each table."""
    found: dict[str, tuple[int, str]] = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        for table in TABLES:
            rows = database.execute(f"select * from {table} order by 1").fetchall()  # noqa: S608  names are ours
            found[table] = len(rows), hashlib.sha256(repr(rows).encode()).hexdigest()
    return found


def _company(fiction: Fiction, at: int) -> tuple[object, ...]:
    draw = fiction.draw
    gone = str(fiction.day()) if draw.random() < 0.12 else None
    seat = fiction.parishes[fiction.parish() - 1]
    form = draw.choice(("limited", "public", "cooperative", "branch"))
    return (
        at,
        f"B{at * 7919 % 100_000_000:08d}",
        fiction.company(),
        form,
        seat,
        draw.randint(1, 900) * 100_000,
        str(fiction.day()),
        gone,
    )


def _officer(fiction: Fiction, companies: int) -> tuple[object, ...]:
    draw = fiction.draw
    return (
        draw.randint(1, companies),
        fiction.person(),
        draw.choice(("director", "secretary", "auditor")),
        str(fiction.day()),
    )


def _filing(fiction: Fiction, companies: int) -> tuple[object, ...]:
    draw = fiction.draw
    kind = draw.choice(("annual report", "change of officers", "change of seat", "increase of capital"))
    return draw.randint(1, companies), kind, str(fiction.day()), fiction.sentence()
