"""SQLite databases captured while other processes write to them, or died while writing."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from exclave.errors import Unreachable
from exclave.registers.sqlite import connecting, copying
from exclave.registers.sqlite.rebuilding import SqliteRebuilder
from exclave.registers.sqlite.register import SqliteRegister
from exclave.testing.observing import Observation, Remembered, observe

MODES = ["delete", "truncate", "persist", "memory", "wal"]
TOTAL = 100_000

# Each transaction moves money between accounts and counts itself: a torn copy has another total, and a copy that is
# too old lacks a number that was acknowledged.
_WRITER = """
import sqlite3, sys, time
path, mode, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode={mode}")
db.execute("PRAGMA synchronous=OFF")
number = db.execute("SELECT max(number) FROM counted").fetchone()[0]
while True:
    number += 1
    begun = time.monotonic()
    db.execute("BEGIN IMMEDIATE")
    for step in range(20):
        one, other = (number * 7 + step) % 1000, (number * 13 + step * 5 + 1) % 1000
        db.execute("UPDATE account SET amount = amount - 1, note = randomblob(200) WHERE id = ?", (one,))
        db.execute("UPDATE account SET amount = amount + 1, note = randomblob(200) WHERE id = ?", (other,))
    db.execute("INSERT INTO counted VALUES (?)", (number,))
    db.execute("COMMIT")
    print(number, time.time_ns(), time.monotonic() - begun, flush=True)
    if pause:
        time.sleep(pause)
"""


def _make(path: Path, mode: str, *, ballast_bytes: int = 0) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("PRAGMA synchronous=OFF")
        database.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, amount INTEGER, note BLOB)")
        database.execute("CREATE TABLE counted (number INTEGER PRIMARY KEY)")
        database.execute("CREATE TABLE ballast (content BLOB)")
        database.execute("BEGIN")
        database.executemany(
            "INSERT INTO account VALUES (?, ?, randomblob(200))", ((at, TOTAL // 1000) for at in range(1000))
        )
        database.execute("INSERT INTO counted VALUES (0)")
        for _ in range(ballast_bytes >> 20):
            database.execute("INSERT INTO ballast VALUES (randomblob(1048000))")
        database.execute("COMMIT")


@contextmanager
def _writer(path: Path, mode: str, log: Path, *, pause: float = 0.0) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), mode, str(pause)], stdout=out)
        try:
            before = log.stat().st_size
            while log.stat().st_size == before:
                assert process.poll() is None, "the writer failed"
                time.sleep(0.01)
            yield process
            assert process.poll() is None, "the writer failed"
        finally:
            process.kill()
            process.wait()


def _acknowledged(log: Path) -> list[tuple[int, int, float]]:
    lines = [line.split() for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [(int(number), int(at), float(took)) for number, at, took in lines]


def _check(seen: Observation, log: Path, place: Path) -> None:
    place.mkdir()
    (place / "ledger.db").write_bytes(seen.content[b"ledger.db"])
    rebuilt = SqliteRebuilder().finish(place, seen.environment)
    assert all(check.level == "ok" for check in rebuilt.checks)
    assert [entry.name for entry in place.iterdir()] == ["ledger.db"]
    with closing(sqlite3.connect(place / "ledger.db")) as database:
        assert database.execute("SELECT sum(amount) FROM account").fetchone() == (TOTAL,)
        last = database.execute("SELECT max(number), count(*) - 1 FROM counted").fetchone()
    assert last[0] == last[1]
    must = [number for number, at, _ in _acknowledged(log) if at < seen.consistent_at]
    assert last[0] >= max(must), "a transaction that was acknowledged before the capture is not in it"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pause", [0.0, 0.02])
def test_consistent_while_two_processes_write(tmp_path: Path, mode: str, pause: float) -> None:
    path, log = tmp_path / "ledger.db", tmp_path / "log"
    _make(path, mode, ballast_bytes=16 << 20)
    register = SqliteRegister(path, temporary=tmp_path / "copies")
    with _writer(path, mode, log, pause=pause):
        for turn in range(3):
            seen = observe(register, Remembered())
            assert seen.environment["journal_mode"] == ("wal" if mode == "wal" else "rollback")
            _check(seen, log, tmp_path / f"restored{turn}")
    assert not list((tmp_path / "copies").iterdir())


@pytest.mark.parametrize("mode", MODES)
def test_a_capture_between_writers_knows_what_was_written(tmp_path: Path, mode: str) -> None:
    path, log = tmp_path / "ledger.db", tmp_path / "log"
    _make(path, mode)
    register = SqliteRegister(path)
    before = Remembered()
    for turn in range(2):
        with _writer(path, mode, log, pause=0.01):
            seen = observe(register, before)
            assert seen.read
        _check(seen, log, tmp_path / f"restored{turn}")
        before = seen.remembered


@pytest.mark.parametrize("mode", ["delete", "persist", "truncate", "wal"])
def test_a_writer_killed_in_mid_transaction_leaves_a_sound_copy(tmp_path: Path, mode: str) -> None:
    path, log = tmp_path / "ledger.db", tmp_path / "log"
    _make(path, mode)
    log.write_text("0 0 0.0\n")
    spilling = (
        "import os, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute(f'PRAGMA journal_mode={sys.argv[2]}'); db.execute('PRAGMA cache_size=5')\n"
        "db.execute('BEGIN'); db.execute('UPDATE account SET amount = 7, note = randomblob(300)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", spilling, str(path), mode], check=False)
    assert killed.returncode == -signal.SIGKILL
    beside = path.with_name("ledger.db-wal" if mode == "wal" else "ledger.db-journal")
    assert beside.stat().st_size > 0
    _check(observe(SqliteRegister(path), Remembered()), log, tmp_path / "restored")


def test_a_database_that_is_never_unlocked_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.db"
    _make(path, "delete")
    monkeypatch.setattr(connecting, "PATIENCE_SECONDS", 0.2)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unreachable) as caught:
            observe(SqliteRegister(path), Remembered())
        assert caught.value.id == "sqlite-busy"
        assert SqliteRegister(path).doctor()[0].level == "warn"


def test_a_killed_capture_leaves_nothing_for_long(tmp_path: Path) -> None:
    path, copies = tmp_path / "ledger.db", tmp_path / "copies"
    _make(path, "delete", ballast_bytes=8 << 20)
    killed = (
        "import os, sys\nfrom pathlib import Path\nfrom exclave.registers.sqlite import copying\n"
        "with copying.temporary_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'copy').write_bytes(bytes(1000))\n    os.kill(os.getpid(), 9)\n"
    )
    source = str(Path(copying.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": source}
    subprocess.run([sys.executable, "-c", killed, str(copies)], check=False, env=environment)
    (left,) = copies.iterdir()
    os.utime(left, (0, 0))
    with copying.temporary_folder(copies) as mine, copying.temporary_folder(copies) as another:
        assert {mine, another} == set(copies.iterdir()), "what is in use stays, what is dead goes"


@pytest.mark.parametrize(("mode", "most_seconds"), [("wal", 1.0), ("delete", 4.0)])
@pytest.mark.parametrize("size_bytes", [32 << 20, pytest.param(200 << 20, marks=pytest.mark.long)])
def test_busy_writers_get_through(
    tmp_path: Path, mode: str, most_seconds: float, size_bytes: int, record_property
) -> None:
    path, log = tmp_path / "ledger.db", tmp_path / "log"
    _make(path, mode, ballast_bytes=size_bytes)
    register = SqliteRegister(path, temporary=tmp_path / "copies")
    with _writer(path, mode, log):
        begun = time.time_ns()
        seen = observe(register, Remembered())
        ended = time.time_ns()
    _check(seen, log, tmp_path / "restored")
    during = [entry for entry in _acknowledged(log) if begun <= entry[1] <= ended]
    longest = max(took for _, _, took in during)
    record_property("longest_pause_seconds", longest)
    assert len(during) > 3
    assert longest < most_seconds
    gaps = [later[1] - earlier[1] for earlier, later in itertools.pairwise(during)]
    assert max(gaps, default=0) < most_seconds * 1e9
