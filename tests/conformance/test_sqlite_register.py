"""The SQLite register obeys the port, in both families of journal modes and with odd page sizes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from exclave.registers.sqlite import standing
from exclave.registers.sqlite.register import SqliteRegister
from exclave.testing.register_suite import RegisterSuite, Subject


@pytest.mark.parametrize(
    ("mode", "page_bytes"), [("delete", 4096), ("wal", 4096), ("delete", 512), ("wal", 65536)]
)
class TestSqliteRegister(RegisterSuite):
    @pytest.fixture
    def subject(self, tmp_path: Path, monkeypatch, mode: str, page_bytes: int) -> Subject:
        monkeypatch.setattr(standing, "SETTLED_NS", 200_000_000)  # not two seconds, to be quick
        folder = tmp_path / "home"
        folder.mkdir()
        path = folder / "business.db"
        # Stays open, as an application would: in WAL mode the log then is not emptied.
        application = sqlite3.connect(path, isolation_level=None)
        application.execute(f"PRAGMA page_size={page_bytes}")
        application.execute(f"PRAGMA journal_mode={mode}")
        application.execute("CREATE TABLE company (id INTEGER PRIMARY KEY, name TEXT)")
        _insert(application, 30_000)

        def content() -> dict[bytes, bytes]:
            """What SQLite's own backup makes of it."""
            copy = tmp_path / "copy"
            with closing(sqlite3.connect(copy)) as target:
                application.backup(target)
            data = copy.read_bytes()
            copy.unlink()
            return {b"business.db": data}

        def change() -> frozenset[bytes]:
            _insert(application, 100)
            return frozenset({b"business.db"})

        yield Subject(
            register=SqliteRegister(path, temporary=tmp_path / "temporary"),
            content=content,
            change=change,
            quiet_seconds=0.25,
        )
        application.close()
        assert not list((tmp_path / "temporary").glob("*")), "a temporary copy was left"


def _insert(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("BEGIN")
    connection.executemany(
        "INSERT INTO company (name) VALUES (?)", ((f"company {at} " * 4,) for at in range(count))
    )
    connection.execute("COMMIT")
