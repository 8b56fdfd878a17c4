# ruff: noqa: S608  every word of the SQL made here is ours
"""The land register of the demonstration: its tables, its rows, and a day's business, as SQL for psql."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from exclave.cli.demo.fiction import COUNTIES, Fiction

TABLES = ("parish", "person", "parcel", "deed", "ownership", "mortgage")
_SCHEMA = """
create table parish (id int primary key, name text not null, county text not null);
create table person (
  id int primary key, code text not null unique, name text not null, born date, legal boolean not null);
create table parcel (
  id int primary key, cadastre text not null unique, parish_id int not null, address text not null,
  area_m2 int not null, use text not null, boundary text not null, assessed_cents bigint not null);
create table deed (
  id int primary key, number text not null, parcel_id int not null, kind text not null, signed_on date not null,
  notary text not null, price_cents bigint);
create table ownership (
  parcel_id int not null, person_id int not null, numerator int not null, denominator int not null,
  deed_id int not null);
create table mortgage (
  id int primary key, parcel_id int not null, creditor_id int not null, amount_cents bigint not null,
  rank int not null, entered_on date not null, released_on date);
"""
_INDEXES = """
alter table parcel add foreign key (parish_id) references parish;
alter table deed add foreign key (parcel_id) references parcel;
alter table ownership add primary key (parcel_id, person_id);
alter table ownership add foreign key (person_id) references person;
alter table mortgage add foreign key (parcel_id) references parcel;
create index on deed (parcel_id);
create index on mortgage (parcel_id);
"""
CHECK = " union all ".join(
    f"select '{table}', count(*), md5(string_agg(md5(t::text), '' order by md5(t::text))) from {table} t"
    for table in TABLES
)
"""One row a table: name, rows, checksum of the rows' text."""


def build(fiction: Fiction, parcels: int) -> Iterator[str]:
    """SQL of the whole register: about 4.5 rows a parcel."""
    draw = fiction.draw
    yield _SCHEMA
    yield from _copy(
        "parish", ((at, name, draw.choice(COUNTIES)) for at, name in enumerate(fiction.parishes, 1))
    )
    people = parcels * 4 // 5
    yield from _copy("person", (_person(fiction, at) for at in range(1, people + 1)))
    yield from _copy("parcel", (_parcel(fiction, at) for at in range(1, parcels + 1)))
    deeds = [(at, draw.randint(1, parcels)) for at in range(parcels + 1, parcels + parcels // 3 + 1)]
    firsts = [(at, at) for at in range(1, parcels + 1)]
    yield from _copy("deed", (_deed(fiction, at, parcel) for at, parcel in firsts + deeds))
    yield from _copy("ownership", (_owner(fiction, at, people) for at in range(1, parcels + 1)))
    yield from _copy(
        "mortgage", (_mortgage(fiction, at, parcels, people) for at in range(1, parcels * 2 // 5 + 1))
    )
    yield _INDEXES
    yield "vacuum (analyze, freeze);\ncheckpoint;\n"


def business(fiction: Fiction, parcels: int, sales: int, number: int) -> str:
    """SQL of a day: sales with their deeds, and some mortgages entered and released. `number` keeps deeds apart."""
    draw, people, lines = fiction.draw, parcels * 4 // 5, list[str]()
    for at in range(sales):
        deed, parcel = number * 100_000 + parcels * 4 + at, draw.randint(1, parcels)
        values = ", ".join(_literal(value) for value in _deed(fiction, deed, parcel))
        buyer = draw.randint(1, people)
        lines += [
            "begin;",
            f"insert into deed values ({values});",
            f"delete from ownership where parcel_id = {parcel};",
            f"insert into ownership values ({parcel}, {buyer}, 1, 1, {deed});",
            f"update mortgage set released_on = current_date where parcel_id = {parcel} and released_on is null;"
            if at % 3 == 0
            else f"update parcel set assessed_cents = assessed_cents + {draw.randint(1, 90_000)} where id = {parcel};",
            "commit;",
        ]
    return "\n".join(lines) + "\n"


def _person(fiction: Fiction, at: int) -> tuple[object, ...]:
    legal = at % 9 == 0
    born = None if legal else fiction.day() - timedelta(days=fiction.draw.randint(7000, 26_000))
    return at, f"K{at * 7919 % 10_000_000:07d}", fiction.company() if legal else fiction.person(), born, legal


def _parcel(fiction: Fiction, at: int) -> tuple[object, ...]:
    draw, parish = fiction.draw, fiction.parish()
    east, north, wide, deep = (
        draw.randint(400_000, 690_000),
        draw.randint(6_300_000, 6_590_000),
        draw.randint(9, 220),
        draw.randint(12, 310),
    )
    corners = (
        (east, north),
        (east + wide, north),
        (east + wide, north + deep),
        (east, north + deep),
        (east, north),
    )
    boundary = "POLYGON((" + ",".join(f"{x} {y}" for x, y in corners) + "))"
    use = draw.choices(("dwelling", "farmland", "forest", "commercial", "public"), (50, 22, 16, 9, 3))[0]
    address = f"{fiction.street()}, {fiction.parishes[parish - 1]}"
    return (
        at,
        f"{parish:04d}:{at % 997:03d}:{at:06d}",
        parish,
        address,
        wide * deep,
        use,
        boundary,
        wide * deep * draw.randint(40, 9000),
    )


def _deed(fiction: Fiction, at: int, parcel: int) -> tuple[object, ...]:
    kind = fiction.draw.choices(("sale", "gift", "inheritance", "first entry"), (60, 10, 20, 10))[0]
    price = fiction.draw.randint(900_000, 95_000_000) if kind == "sale" else None
    day = fiction.day()
    return at, f"{day.year}/{at:07d}", parcel, kind, day, fiction.person(), price


def _owner(fiction: Fiction, at: int, people: int) -> tuple[object, ...]:
    return at, fiction.draw.randint(1, people), 1, 1, at


def _mortgage(fiction: Fiction, at: int, parcels: int, people: int) -> tuple[object, ...]:
    draw = fiction.draw
    entered = fiction.day()
    released = entered + timedelta(days=draw.randint(300, 4000)) if draw.random() < 0.3 else None
    creditor = max(9, draw.randint(1, people) // 9 * 9)
    return (
        at,
        draw.randint(1, parcels),
        creditor,
        draw.randint(500_000, 60_000_000),
        draw.choice((1, 1, 1, 2)),
        entered,
        released,
    )


def _copy(table: str, rows: Iterator[tuple[object, ...]]) -> Iterator[str]:
    yield f"copy {table} from stdin;\n"
    batch = list[str]()
    for row in rows:
        batch.append("\t".join("\\N" if value is None else str(value) for value in row))
        if len(batch) == 2000:
            yield "\n".join(batch) + "\n"
            batch = []
    yield "".join(f"{line}\n" for line in batch) + "\\.\n"


def _literal(value: object) -> str:
    if value is None:
        return "null"
    return str(value) if isinstance(value, int) else "'" + str(value).replace("'", "''") + "'"
