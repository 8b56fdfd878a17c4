"""A small realm whose registers need no server: documents and a SQLite database, three folders as embassies."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exclave.cli.main import run

Say = Callable[..., dict[str, Any]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run `exclave WORDS --json` in a folder; its document."""
    monkeypatch.delenv("EXCLAVE_CONFIG", raising=False)

    def call(folder: Path, *words: str, expect: int = 0) -> dict[str, Any]:
        monkeypatch.chdir(folder)
        code = run([*words, "--json"])
        out, err = capsys.readouterr()
        assert code == expect, out + err
        document: dict[str, Any] = json.loads(out)
        return document

    return call


@pytest.fixture
def realm(tmp_path: Path, say: Say) -> Path:
    """A home that has had its ceremony: registers `papers` and `ledger`, embassies a, b, c, custodians x, y, z."""
    home = tmp_path / "seat"
    (home / "papers" / "deep").mkdir(parents=True)
    (home / "papers" / "one.txt").write_text("the first\n")
    (home / "papers" / "deep" / "two.bin").write_bytes(os.urandom(300_000))
    with closing(sqlite3.connect(home / "ledger.db")) as ledger, ledger:
        ledger.execute("create table entry (id integer primary key, text text)")
        ledger.executemany("insert into entry values (null, ?)", [(f"entry {n}",) for n in range(500)])
    say(home, "init", "--realm", "Test", "--copies", "2")
    settings = home / "exclave.toml"
    settings.write_text(settings.read_text().replace("patience_seconds = 60", "patience_seconds = 1"))
    say(home, "register", "add", "papers", "papers")
    say(home, "register", "add", "ledger", "ledger.db")
    for name in "abc":
        say(home, "embassy", "add", name, str(tmp_path / "abroad" / name))
    say(
        home,
        "ceremony",
        "--custodian",
        "x",
        "--custodian",
        "y",
        "--custodian",
        "z",
        "--out",
        str(tmp_path / "people"),
    )
    return home
