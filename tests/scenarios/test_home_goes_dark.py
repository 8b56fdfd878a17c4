"""Home goes dark: three registers, three embassies, five custodians; home is destroyed; Luxembourg starts them.

The story is told by the demonstration, through the commands that a visitor types; here it is small, and what it
claims is looked at again from outside.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import exclave
from exclave.testing.postgres import workspace

SOURCE = Path(exclave.__file__).parents[1]
pytestmark = pytest.mark.integration


def run(folder: Path, *words: str, expect: int = 0) -> dict[str, Any]:
    """A command with --json in a process of its own; its document."""
    done = subprocess.run(
        [sys.executable, "-m", "exclave", *words, "--json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SOURCE), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[Path, dict[str, Any]]]:
    with workspace() as place:
        root = place / "realm"
        try:
            yield root, run(place, "demo", "--small", "--dir", str(root))
        finally:
            run(place, "demo", "--clean", "--dir", str(root))
            assert not root.exists()


@pytest.fixture(scope="module")
def registers(told: tuple[Path, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in told[1]["activation"]["registers"]}


def test_home_is_gone_and_the_contents_are_there(told, registers):
    root, facts = told
    assert not (root / "home").exists()
    assert facts["equal"] is True
    assert facts["rows"] > 1000
    assert set(registers) == {"land", "business", "gazette"}


def test_the_second_snapshot_moved_little(told):
    _root, facts = told
    assert 0 < facts["second_bytes"] < facts["first_bytes"] / 5


def test_the_loss_is_told(told, registers):
    _root, facts = told
    assert facts["lost"]["rows"] > 0
    assert facts["lost"]["documents"] == 2
    for row in registers.values():
        assert 0 < row["rpo_seconds"] < 600
        assert 0 < row["ready_seconds"] < 600
        assert row["snapshot"] == 2


def test_the_land_register_answers_and_takes_new_deeds(registers):
    with psycopg.connect(registers["land"]["address"], dbname="land", autocommit=True) as land:
        (before,) = land.execute("select count(*) from deed").fetchone() or (0,)
        land.execute("insert into deed values (99000001, '2026/x', 1, 'sale', current_date, 'A. Notary', 1)")
        (after,) = land.execute("select count(*) from deed").fetchone() or (0,)
        # What home wrote after its last snapshot has numbers of the third day: none of it may be here.
        (late,) = land.execute(
            "select count(*) from deed where id >= 200000 and id < 99000001"
        ).fetchone() or (0,)
        (first_day,) = land.execute(
            "select count(*) from deed where id between 100000 and 199999"
        ).fetchone() or (0,)
    assert after == before + 1
    assert late == 0
    assert first_day == 150


def test_the_business_register_is_whole(registers):
    path = Path(registers["business"]["place"]) / "business.sqlite"
    with closing(sqlite3.connect(path)) as business:
        assert business.execute("pragma integrity_check").fetchone() == ("ok",)
        assert business.execute("select count(*) from filing").fetchone() == (80 + 40,)


def test_the_gazette_is_served_and_nothing_beside_it(registers):
    address = registers["gazette"]["address"]
    with urllib.request.urlopen(address + "index.html", timeout=20) as page:
        assert b"State Gazette" in page.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address + "..%2f..%2fexclave.toml", timeout=20)
    refused.value.close()
    assert refused.value.code in {400, 403, 404}


def test_two_custodians_are_not_enough_again(told, tmp_path):
    root, _facts = told
    abroad = root / "luxembourg-site"
    few = [str(path) for path in sorted(abroad.glob("*.approval"))[:2]]
    words = [word for path in few for word in ("--approval", path)]
    document = run(abroad, "restore", "gazette", "--to", str(tmp_path / "g"), *words, expect=5)
    assert document["schema"] == "exclave/error/1"
    assert document["exit"] == 5
    assert not (tmp_path / "g").exists()


def test_a_folder_of_the_gazette_is_restored_alone(told, registers, tmp_path):
    root, _facts = told
    gazette = Path(registers["gazette"]["place"])
    year = min(path.name for path in gazette.iterdir() if path.is_dir())
    document = run(root / "luxembourg-site", "restore", "gazette", year, "--to", str(tmp_path / "g"))
    assert document["snapshot"] == 2
    wanted = {path.name: path.read_bytes() for path in (gazette / year).iterdir()}
    found = {path.name: path.read_bytes() for path in (tmp_path / "g").rglob("*") if path.is_file()}
    assert found == wanted


def test_the_embassy_can_tell_how_it_stands_and_where_the_copies_are(told):
    root, _facts = told
    abroad = root / "luxembourg-site"
    assert run(abroad, "status", expect=3)["verdict"] == "unproven"
    assert run(abroad, "verify")["verdict"] == "good"
    status = run(abroad, "status")
    assert status["verdict"] == "protected"
    assert {row["snapshot"] for row in status["registers"]} == {2}
    copies = run(abroad, "where", "land")["copies"]
    assert [row["embassy"] for row in copies] == ["luxembourg", "reykjavik", "singapore"]
    assert all(row["proven"]["good"] for row in copies)
    assert [row["snapshot"] for row in run(abroad, "snapshots", "land")["snapshots"]] == [1, 2]


def test_no_embassy_holds_a_word_of_it(told):
    """Names of registers, people, tables and files, and the custodians' names, are nowhere abroad."""
    root, _facts = told
    words = [
        b"gazette",
        b"business",
        b"State Gazette",
        b"mortgage",
        b"parcel",
        b"index.html",
        b"amber-tal",
        b"Kaldova",
    ]
    for path in (root / "embassies").rglob("*"):
        assert not any(word in path.name.encode() for word in words), path
        if path.is_file():
            data = path.read_bytes()
            assert not [word for word in words if word in data], path


def test_a_second_activation_is_refused_while_the_first_stands(told):
    root, _facts = told
    document = run(root / "luxembourg-site", "activate", expect=4)
    assert document["id"] == "place-taken"


def test_stopping_ends_what_runs_and_keeps_what_was_restored(told, registers):
    root, _facts = told
    abroad = root / "luxembourg-site"
    assert run(abroad, "activate", "--stop", expect=4)["id"] == "not-confirmed"
    assert run(abroad, "activate", "--stop", "--dry-run")["dry_run"] is True
    stopped = run(abroad, "activate", "--stop", "--yes")["activation"]
    assert stopped["ended"] is not None
    assert all(Path(row["place"]).exists() for row in registers.values())
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(registers["gazette"]["address"], timeout=5)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(registers["land"]["address"], connect_timeout=5)
    assert run(abroad, "activate", "--stop", expect=1)["id"] == "nothing-activated"
