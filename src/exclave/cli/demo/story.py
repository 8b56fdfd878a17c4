"""The story: a state protects its registers, loses its home, and starts again abroad."""

from __future__ import annotations

import hashlib
import json
import sys
import urllib.request
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

from exclave import instants
from exclave.cli.demo.fiction import COUNTRY, CUSTODIANS, EMBASSIES, Fiction
from exclave.cli.demo.ground import ABROAD
from exclave.cli.demo.home import Home, major, psql_program
from exclave.cli.progress import size, span
from exclave.cli.words import now
from exclave.config import FILE_NAME, load
from exclave.errors import Misconfigured

if TYPE_CHECKING:
    from exclave.cli.demo.home import Content, Sizes
    from exclave.cli.demo.narration import Narrator

REALM, HOME = "Kaldova", "home"
THRESHOLD = 3
REASON = "Home is dark. Start the land register and the Gazette abroad."


class Story:
    """The acts, in order. Raises Misconfigured where one does not come true."""

    def __init__(self, root: Path, teller: Narrator, sizes: Sizes) -> None:
        self.root, self.tell = root, teller
        self.abroad = root / ABROAD
        self.home = Home(root / HOME, sizes, Fiction(seed=2017))

    def run(self) -> dict[str, Any]:
        """The whole story; what it found, as plain values."""
        self._build()
        self._found()
        first = self._protect("Protect: sealed at home, durable abroad. Home cannot open what it sealed")
        self._a_day()
        kept = self.home.content()
        second = self._protect("A day goes by, and protect runs again")
        self.tell.say(f"{size(second)} went to each embassy this time, {size(first)} the first time,")
        self.tell.say(f"for registers of {size(self.home.bytes())}.")
        self.tell.chapter("Is it good? Anyone can check, without any key")
        self.tell.run(HOME, "verify")
        self.tell.run(HOME, "status")
        last, dark = self._destroy()
        self._ask()
        record = self._activate(dark)
        self._compare(kept, record)
        lost = self._count_lost(kept, last, record)
        return {
            "first_bytes": first,
            "second_bytes": second,
            "rows": kept.rows(),
            "documents": len(kept.gazette),
            "equal": True,
            "lost": lost,
            "activation": record,
        }

    def _build(self) -> None:
        self.tell.chapter(f"The {COUNTRY} has three registers at home (all of their data is synthetic)")
        self.home.build()
        now = self.home.content()
        land, business = (sum(count for count, _ in table.values()) for table in (now.land, now.business))
        self.tell.say(f"land      PostgreSQL {major()}: {land} rows of parcels, owners, deeds, mortgages")
        self.tell.say(f"business  SQLite: {business} rows of companies, officers, filings")
        self.tell.say(f"gazette   {len(now.gazette)} documents of the State Gazette")

    def _found(self) -> None:
        self.tell.chapter("It names three embassies and five custodians. Any three can open, no two can")
        run = self.tell.run
        run(HOME, "init", "--realm", REALM, "--copies", "2", quiet=True)
        run(HOME, "register", "add", "land", "--conninfo", self.home.conninfo(), quiet=True)
        run(HOME, "register", "add", "business", "registers/business.sqlite", quiet=True)
        run(HOME, "register", "add", "gazette", "registers/gazette", quiet=True)
        for name in EMBASSIES:
            run(HOME, "embassy", "add", name, f"../embassies/{name}", quiet=name != EMBASSIES[0])
        people = [word for name in CUSTODIANS for word in ("--custodian", name)]
        run(HOME, "ceremony", *people, "--threshold", str(THRESHOLD), "--out", "../custodians")
        self.tell.say("Luxembourg is told the realm's id and the names behind its pseudonyms, and no key:")
        self.abroad.mkdir()
        self.abroad.chmod(0o711)
        realm = load(self.root / HOME / FILE_NAME).realm.id or ""
        words = (
            "init",
            "--embassy",
            "--realm",
            REALM,
            "--realm-id",
            realm,
            "--annex",
            f"../{HOME}/charter/annex.json",
        )
        run(ABROAD, *words, quiet=True)
        for name in EMBASSIES:
            run(ABROAD, "embassy", "add", name, f"../embassies/{name}", "--no-probe", quiet=True)
        (self.abroad / "activated").mkdir()
        (self.abroad / "activated").chmod(0o711)

    def _protect(self, title: str) -> int:
        """Bytes that came to lie in one embassy."""
        self.tell.chapter(title)
        before = stored(self.root)
        self.tell.run(HOME, "protect")
        return stored(self.root) - before

    def _a_day(self) -> None:
        self.home.business(sales=150, filings=40, documents=12)

    def _destroy(self) -> tuple[Content, str]:
        self.tell.chapter("More is written. Then home is destroyed")
        self.home.business(sales=30, filings=8, documents=2)
        last = self.home.content()
        dark = f"{instants.to_text(now())[:23]}Z"
        self.home.destroy()
        self.tell.say("Its PostgreSQL is killed, its folder with registers, keys and settings is deleted.")
        self.tell.say("What is left: three embassies that cannot read what they hold, five custodians.")
        return last, dark

    def _ask(self) -> None:
        self.tell.chapter("Luxembourg asks the custodians. Two of them are not enough")
        names = ("land", "business", "gazette")
        self.tell.run(ABROAD, "request", *names, "--embassy", EMBASSIES[0], "--reason", REASON)
        for name in CUSTODIANS[: THRESHOLD - 1]:
            self._approve(name)
        self.tell.run(ABROAD, "activate", expect=5)

    def _approve(self, name: str) -> None:
        self.tell.run(
            "custodians", "approve", f"../{ABROAD}/request.exclave", "--as", name, "--yes", quiet=True
        )

    def _activate(self, dark: str) -> dict[str, Any]:
        self.tell.chapter("A third agrees, and Luxembourg starts what home no longer can")
        self._approve(CUSTODIANS[THRESHOLD - 1])
        self.tell.run(ABROAD, "activate", "--dark-since", dark)
        (path,) = (self.abroad / "state" / "activations").glob("*.json")
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record

    def _compare(self, kept: Content, record: dict[str, Any]) -> None:
        from exclave.cli.demo import home

        self.tell.chapter("Is it what home had at the last snapshot?")
        at = {row["name"]: row for row in record["registers"]}
        database = Path(at["business"]["place"]) / "business.sqlite"
        found = home.content(in_database(at["land"]["address"]), database, Path(at["gazette"]["place"]))
        for name, here, there in (
            ("land", kept.land, found.land),
            ("business", kept.business, found.business),
            ("gazette", kept.gazette, found.gazette),
        ):
            if here != there:
                why = f"{name} differs from what home had at the last snapshot"
                raise Misconfigured(
                    "demo-failed", "The comparison failed", why=why, hint="exclave demo --clean"
                )
        tables = len(kept.land) + len(kept.business)
        self.tell.good(f"{kept.rows()} rows in {tables} tables: the same counts, the same checksums")
        self.tell.good(f"{len(kept.gazette)} documents: the same SHA-256, each")
        page = min(name for name in kept.gazette if name.endswith(".html") and "/" in name)
        with urllib.request.urlopen(at["gazette"]["address"] + page, timeout=20) as answer:  # noqa: S310  ours
            if hashlib.sha256(answer.read()).hexdigest() != kept.gazette[page]:
                why = f"{page} differs over HTTP"
                raise Misconfigured(
                    "demo-failed", "The comparison failed", why=why, hint="exclave demo --clean"
                )
        self.tell.good(f"{page} is served as it was printed")

    def _count_lost(self, kept: Content, last: Content, record: dict[str, Any]) -> dict[str, int]:
        lost = {
            "rows": last.rows() - kept.rows(),
            "documents": len(last.gazette.keys() - kept.gazette.keys()),
        }
        rpo = max(row["rpo_seconds"] for row in record["registers"])
        self.tell.say(
            f"Lost, because it was written after the last snapshot: {lost['rows']} rows and "
            f"{lost['documents']} documents."
        )
        self.tell.table(
            [
                ("register", "lost at most (RPO)", "serving after (RTO)", "from"),
                *(
                    (
                        row["name"],
                        span(row["rpo_seconds"]),
                        f"{row['ready_seconds']:.1f} s",
                        f"snapshot {row['snapshot']}, {row['consistent_at'][:19].replace('T', ' ')} UTC",
                    )
                    for row in record["registers"]
                ),
            ]
        )
        self.tell.say(f"RPO {rpo:.1f} s, RTO {record['rto_seconds']:.1f} s, measured on this machine.")
        return lost

    def farewell(self, folder: Path, record: dict[str, Any]) -> None:
        """What is running, where, and what to try next."""
        self.tell.chapter("What runs now, and what to try")
        at = {row["name"]: row for row in record["registers"]}
        land = in_database(at["land"]["address"])
        self.tell.say(f"the land register   {psql_program()} -d '{land}'")
        self.tell.say(f"the State Gazette   {at['gazette']['address']}")
        self.tell.say(f"the companies       {at['business']['place']}/business.sqlite")
        self.tell.say("")
        if which("exclave") is None:
            self.tell.say(f"alias exclave='{_this_command()}'")
        self.tell.say(f"cd {folder / ABROAD}, and then:")
        self.tell.say("  exclave verify                              every stored byte, without any key")
        self.tell.say("  exclave where land                          every copy, and when it was last proven")
        self.tell.say("  exclave restore gazette 2020 --to ./back    a folder out of the sealed Gazette")
        self.tell.say("  exclave activate --stop                     ends what was started")
        self.tell.say(
            "exclave demo --clean (or make demo-clean) removes it all. How it works: docs/, ARCHITECTURE.md."
        )


def _this_command() -> str:
    """How this very program was started."""
    script = Path(sys.argv[0]).absolute()
    return str(script) if script.name == "exclave" else f"{sys.executable} -m exclave"


def stored(root: Path) -> int:
    """Bytes that one embassy holds."""
    place = root / "embassies" / EMBASSIES[0]
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file())


def in_database(address: str) -> str:
    """The same server, the land register's database."""
    return " ".join([*(word for word in address.split() if not word.startswith("dbname=")), "dbname=land"])
