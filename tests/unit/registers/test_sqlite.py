"""Odd databases and odd places: what a capture makes of them, and what a rebuilder refuses."""

from __future__ import annotations

import os
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path

import pytest

from exclave.errors import ExclaveError, Misconfigured, NotThere, Refused, Tampered
from exclave.listing import CTIME, ROOT, SIZE
from exclave.registers.sqlite import checking, standing
from exclave.registers.sqlite.rebuilding import SqliteRebuilder
from exclave.registers.sqlite.register import SqliteRegister
from exclave.testing.observing import Observation, Remembered, observe


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "SETTLED_NS", 200_000_000)  # not two seconds


def _make(path: Path, *, page_bytes: int = 4096, rows: int = 2000, mode: str = "delete") -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA page_size={page_bytes}")
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA user_version=41")
        database.execute("PRAGMA application_id=1234")
        database.execute("CREATE TABLE act (id INTEGER PRIMARY KEY, title TEXT)")
        database.execute("BEGIN")
        database.executemany("INSERT INTO act (title) VALUES (?)", ((f"act {at}" * 9,) for at in range(rows)))
        database.execute("DELETE FROM act WHERE id % 3 = 0 OR id > 1000")
        database.execute("COMMIT")
    return path


def _rows(path: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM act ORDER BY id").fetchall()


def _restore(seen: Observation, name: str, place: Path) -> Path:
    place.mkdir()
    (place / name).write_bytes(seen.content[os.fsencode(name)])
    return place


@pytest.mark.parametrize(
    ("page_bytes", "cut"), [(512, 4096), (1024, 4096), (4096, 4096), (8192, 8192), (65536, 65536)]
)
@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_every_page_size_comes_back(tmp_path: Path, page_bytes: int, cut: int, mode: str) -> None:
    path = _make(tmp_path / "acts.db", page_bytes=page_bytes, mode=mode)
    seen = observe(SqliteRegister(path), Remembered())
    listing = seen.remembered.folders[b""]
    assert listing.names == [ROOT, b"acts.db"]
    assert listing.page_bytes.tolist() == [0, cut]
    assert seen.environment["page_size"] == page_bytes
    assert (seen.environment["user_version"], seen.environment["application_id"]) == (41, 1234)
    place = _restore(seen, "acts.db", tmp_path / "restored")
    rebuilt = SqliteRebuilder().finish(place, seen.environment)
    assert [check.level for check in rebuilt.checks] == ["ok", "ok"]
    assert [entry.name for entry in place.iterdir()] == ["acts.db"]
    with closing(sqlite3.connect(place / "acts.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == (mode,)
    assert _rows(place / "acts.db") == _rows(path)


def test_an_empty_file_is_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "new.db"
    path.touch()
    seen = observe(SqliteRegister(path), Remembered())
    place = _restore(seen, "new.db", tmp_path / "restored")
    assert SqliteRebuilder().finish(place, seen.environment).checks[0].level == "ok"
    assert path.stat().st_size == 0


@pytest.mark.parametrize("content", [b"x", os.urandom(8192), b"SQLite format 3\x00" + os.urandom(9000)])
def test_garbage_and_encrypted_files_are_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "acts.db"
    path.write_bytes(content)
    with pytest.raises(Tampered) as caught:
        observe(SqliteRegister(path), Remembered())
    assert caught.value.id == "source-damaged"
    (finding,) = SqliteRegister(path).doctor()
    assert (finding.id, finding.level) == ("source-damaged", "fail")
    assert path.read_bytes() == content


def test_a_file_that_was_cut_is_damaged(tmp_path: Path) -> None:
    path = _make(tmp_path / "acts.db")
    os.truncate(path, 4096 * 3)
    with pytest.raises(Tampered) as caught:
        observe(SqliteRegister(path), Remembered())
    assert caught.value.id == "source-damaged"


def test_a_list_of_free_pages_that_leads_astray_is_damaged(tmp_path: Path) -> None:
    path = _make(tmp_path / "acts.db")
    data = bytearray(path.read_bytes())
    assert checking.header(bytes(data[:100])).free_pages > 0
    assert checking.fault(lambda at, length: bytes(data[at : at + length]), len(data)) is None
    for place, value in ((32, 0), (32, 1 << 20), (36, 0), (36, 1 << 30)):
        bad = bytearray(data)
        struct.pack_into(">I", bad, place, value)
        assert checking.fault(lambda at, length, bad=bad: bytes(bad[at : at + length]), len(bad)) is not None
    (first,) = struct.unpack_from(">I", data, 32)
    struct.pack_into(">2I", data, (first - 1) * 4096, first, 0)  # a ring
    assert checking.fault(lambda at, length: bytes(data[at : at + length]), len(data)) is not None


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    register = SqliteRegister(tmp_path / "none.db")
    with pytest.raises(NotThere):
        observe(register, Remembered())
    assert [finding.level for finding in register.doctor()] == ["fail"]
    assert register.size_hint() == 0
    assert not list(tmp_path.iterdir())
    with pytest.raises(Misconfigured):
        observe(SqliteRegister(tmp_path), Remembered())


def test_a_file_that_vanishes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exclave.registers.sqlite import copying

    path = _make(tmp_path / "acts.db")
    rows, copy = _rows(path), copying.copy

    def vanishing(*arguments, **options):
        path.unlink()
        return copy(*arguments, **options)

    monkeypatch.setattr(copying, "copy", vanishing)
    try:
        seen = observe(SqliteRegister(path), Remembered())
    except ExclaveError:
        return  # a clear error is as good as the content that was there
    assert _rows(_restore(seen, "acts.db", tmp_path / "restored") / "acts.db") == rows


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_link_is_followed_and_keeps_its_name(tmp_path: Path, mode: str) -> None:
    (tmp_path / "real").mkdir()
    path = _make(tmp_path / "real" / "v1.db", mode=mode)
    link = tmp_path / "acts.db"
    link.symlink_to(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("INSERT INTO act (title) VALUES ('only in the log')")
        first = observe(SqliteRegister(link), Remembered())
        place = _restore(first, "acts.db", tmp_path / "restored")
        assert _rows(place / "acts.db") == _rows(path)
        application.execute("INSERT INTO act (title) VALUES ('another')")
        assert observe(SqliteRegister(link), first.remembered).read


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_read_only_folder(open_path: Path, ordinary_user, mode: str) -> None:
    folder = open_path / "registers"
    folder.mkdir()
    path = _make(folder / "acts.db", mode=mode)
    rows = _rows(path)
    path.chmod(0o444)
    folder.chmod(0o555)
    past = time.time() - 10
    os.utime(path, (past, past))
    time.sleep(0.25)  # its change time is now
    with ordinary_user():
        register = SqliteRegister(path, temporary=open_path / "copies")
        assert all(finding.level in {"ok", "warn"} for finding in register.doctor())
        first = observe(register, Remembered())
        again = observe(register, first.remembered)
        assert not again.slabs
        assert again.environment["page_size"] == 4096
    assert _rows(_restore(first, "acts.db", open_path / "restored") / "acts.db") == rows
    path.chmod(0)
    with ordinary_user(), pytest.raises(Misconfigured):
        observe(register, Remembered())


def test_a_change_in_the_same_instant_is_not_missed(tmp_path: Path) -> None:
    path = _make(tmp_path / "acts.db")
    register = SqliteRegister(path)
    first = observe(register, Remembered())
    assert set(first.remembered.folders[b""].stats[:, CTIME].tolist()) == {-1}
    about = path.stat()
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("UPDATE act SET title = 'changed' WHERE id = 1")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert observe(register, first.remembered).read
    time.sleep(0.25)
    assert observe(register, first.remembered).read


def test_sizes_are_those_of_the_copy(tmp_path: Path) -> None:
    path = _make(tmp_path / "acts.db", mode="wal")
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("PRAGMA wal_autocheckpoint=0")
        application.execute("BEGIN")
        application.executemany("INSERT INTO act (title) VALUES (?)", (("x" * 3000,) for _ in range(500)))
        application.execute("COMMIT")
        seen = observe(SqliteRegister(path), Remembered())
        size = int(seen.remembered.folders[b""].stats[1, SIZE])
        assert size == len(seen.content[b"acts.db"]) > path.stat().st_size


@pytest.mark.parametrize("at", [4096 + 1, 3 * 4096 + 3])
def test_a_rebuilder_finds_damaged_pages(tmp_path: Path, at: int) -> None:
    seen = observe(SqliteRegister(_make(tmp_path / "acts.db")), Remembered())
    place = _restore(seen, "acts.db", tmp_path / "restored")
    data = bytearray((place / "acts.db").read_bytes())
    data[at : at + 64] = os.urandom(64)
    (place / "acts.db").write_bytes(data)
    with pytest.raises(Tampered) as caught:
        SqliteRebuilder().finish(place, seen.environment)
    assert caught.value.id == "sqlite-check-failed"


def test_a_rebuilder_compares_removes_journals_and_wants_one_file(tmp_path: Path) -> None:
    seen = observe(SqliteRegister(_make(tmp_path / "acts.db")), Remembered())
    place = _restore(seen, "acts.db", tmp_path / "restored")
    (place / "acts.db-journal").write_bytes(b"planted")
    SqliteRebuilder().finish(place, seen.environment)
    assert [entry.name for entry in place.iterdir()] == ["acts.db"]
    with pytest.raises(Tampered):
        SqliteRebuilder().finish(place, seen.environment | {"user_version": 42})
    (place / "another").touch()
    with pytest.raises(Refused):
        SqliteRebuilder().finish(place, seen.environment)


def test_a_rebuilder_tells_of_rows_that_point_nowhere(tmp_path: Path) -> None:
    path = _make(tmp_path / "acts.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as application:
        application.execute("CREATE TABLE cites (act INTEGER REFERENCES act (id))")
        application.execute("INSERT INTO cites VALUES (999999)")
    seen = observe(SqliteRegister(path), Remembered())
    checks = (
        SqliteRebuilder().finish(_restore(seen, "acts.db", tmp_path / "restored"), seen.environment).checks
    )
    assert [check.id for check in checks if check.level == "warn"] == ["sqlite-foreign-keys"]


def test_a_big_database_with_a_rollback_journal_is_worth_a_word(tmp_path: Path, monkeypatch) -> None:
    from exclave.registers.sqlite import register

    monkeypatch.setattr(register, "LONG_COPY_BYTES", 1)
    for mode, level in (("delete", "warn"), ("wal", "ok")):
        findings = SqliteRegister(_make(tmp_path / f"{mode}.db", mode=mode)).doctor()
        assert {finding.id: finding.level for finding in findings} == {
            "sqlite-database": "ok",
            "sqlite-journal-mode": level,
            "sqlite-room": "ok",
        }
        assert all(finding.hint for finding in findings if finding.level != "ok")
