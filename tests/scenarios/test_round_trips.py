"""Real things there and back: trees with everything in them, databases under writes, a file larger than memory.

Each story is told small in the normal run, and in its real size in `make test-long`, which prints what it measured.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from exclave.embassies.embassy import Embassy
from exclave.flows.home import Protected
from exclave.registers.base import Register
from exclave.registers.files.register import FilesRegister
from exclave.registers.postgres import binaries
from exclave.registers.postgres.rebuild import PostgresRebuilder
from exclave.registers.postgres.register import PostgresRegister
from exclave.registers.sqlite.rebuilding import SqliteRebuilder
from exclave.registers.sqlite.register import SqliteRegister
from exclave.runtimes.postgres import PostgresRuntime
from exclave.stores.directory import DirectoryStore
from exclave.testing.comparing import compare
from exclave.testing.postgres import Cluster, cluster, workspace
from exclave.testing.world import World

KERNEL = Path("/usr/src/linux-source-6.1.tar.xz")  # of Debian; without it, this Python's own library
GB = 1 << 30


def _world(folder: Path, register: Register, *, sites: int = 2) -> World:
    embassies = []
    for number in range(sites):
        DirectoryStore.prepare(folder / f"site{number}")
        embassies.append(Embassy(f"site{number}", DirectoryStore(folder / f"site{number}")))
    return World(folder, register, copies=sites, embassies=embassies)


@contextmanager
def _measured(what: str, **told: Any) -> Generator[dict[str, Any]]:
    """Prints seconds and the peak of this process's memory meanwhile, and what the block adds."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    begun = time.monotonic()
    yield told
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) << 10
    told = {"seconds": round(time.monotonic() - begun, 1), "peak_mb": peak >> 20, **told}
    _say(f"{what}: " + ", ".join(f"{name} {value}" for name, value in told.items()))


def _say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")


def _figures(told: dict[str, Any], done: Protected) -> None:
    told |= {
        "snapshot": done.sequence,
        "files": done.files,
        "mb": done.bytes >> 20,
        "new_mb": round(done.new_bytes / (1 << 20), 1),
        "stored_mb": round(done.stored_bytes / (1 << 20), 1),
    }


# ------------------------------------------------------------------------------------------ trees


def test_a_dressed_tree_comes_back(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for part in ("email", "json", "encodings"):
        shutil.copytree(Path(sysconfig.get_path("stdlib")) / part, tree / part)
    _tree_there_and_back(tmp_path, tree)


@pytest.mark.long
def test_a_big_dressed_tree_comes_back(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    if KERNEL.exists():
        _say(f"the tree is {KERNEL}")
        subprocess.run(["tar", "-xJf", KERNEL, "-C", tree], check=True)
    else:
        _say(f"{KERNEL} is not here: the tree is Python's own library")
        shutil.copytree(sysconfig.get_path("stdlib"), tree / "python", symlinks=True)
    _tree_there_and_back(tmp_path, tree)
    shutil.rmtree(tmp_path, ignore_errors=True)


def _tree_there_and_back(tmp_path: Path, tree: Path) -> None:
    _dress(tree)
    world = _world(tmp_path, FilesRegister(tree))
    with _measured("protect") as told:
        done = world.protect()
        _figures(told, done)
    assert done.gaps == ()
    with _measured("restore"):
        restored = world.restore(tmp_path / "back")
    assert restored.gaps == ()
    assert compare(tree, tmp_path / "back") == []
    _redress(tree)
    with _measured("protect again") as told:
        done = world.protect()
        _figures(told, done)
    assert not done.full
    world.restore(tmp_path / "again", embassies=list(world.embassies)[1:])
    assert compare(tree, tmp_path / "again") == []
    world.restore(tmp_path / "first", sequence=1, embassies=list(world.embassies)[:1])
    assert compare(tmp_path / "back", tmp_path / "first") == []


def _acl(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel keeps it: (tag, permissions, id) behind version 2; see acl(5)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NO_ID = 0xFFFFFFFF
ACCESS = _acl((1, 6, NO_ID), (2, 4, 12345), (4, 4, NO_ID), (8, 6, 23456), (16, 6, NO_ID), (32, 0, NO_ID))
DEFAULT = _acl((1, 7, NO_ID), (2, 5, 12345), (4, 5, NO_ID), (16, 5, NO_ID), (32, 0, NO_ID))


def _dress(root: Path) -> None:
    """Whatever a file system can hold, among what is there."""
    rnd = random.Random(1)
    top = os.fsencode(root) + b"/dressed"
    os.makedirs(top + b"/empty/deeper")
    plain = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    for number, path in enumerate(plain[:: max(1, len(plain) // 40)]):
        os.link(path, top + b"/hard%d" % number)
        os.setxattr(path, "user.note", b"\0\xff" * number or b"")
        moment = rnd.randrange(-(10**18), 2 * 10**18)
        os.utime(path, ns=(moment, moment))
    for target in (b"hard1", b"nowhere/at all", b"/etc/hosts", b"x" * 4000, b"\xff\n"):
        os.symlink(target, top + b"/link%d" % len(target))
    with open(top + b"/sparse", "wb") as file:
        for at in (0, 5 << 20, (40 << 20) + 4096):
            file.seek(at)
            file.write(rnd.randbytes(8192))
        file.truncate(64 << 20)
    with open(top + b"/hole", "wb") as file:
        file.truncate(9 << 20)
    os.mkfifo(top + b"/fifo", 0o640)
    for name in (b"\xff\xfe", b"new\nline", b" blank ", b"-rf", b"a" * 255, b"~incoming", b"\xe2\x80\xae"):
        with open(top + b"/" + name, "wb") as file:
            file.write(name * 3)
    os.setxattr(top + b"/hole", "system.posix_acl_access", ACCESS)
    os.setxattr(top + b"/empty", "system.posix_acl_default", DEFAULT)
    os.setxattr(top + b"/empty", "user.of a folder", b"v")
    os.chmod(top + b"/~incoming", 0o4711)
    os.chmod(top + b"/empty/deeper", 0o1777)
    if os.geteuid() == 0:
        os.chown(top + b"/link5", 4711, 4712, follow_symlinks=False)
        for number, path in enumerate(plain[1 :: max(1, len(plain) // 30)]):
            os.chown(path, 10_000 + number, 20_000 + number)
    os.utime(top + b"/link5", ns=(1, 123_456_789_123_456_789), follow_symlinks=False)
    os.utime(top + b"/empty", ns=(7, -7))


def _redress(root: Path) -> None:
    """Some of it changes, goes, or changes its kind."""
    top = os.fsencode(root) + b"/dressed"
    with open(top + b"/sparse", "r+b") as file:
        file.seek(20 << 20)
        file.write(b"new" * 5000)
    os.unlink(top + b"/hard3")
    os.symlink(b"hard1", top + b"/hard3")
    os.unlink(top + b"/fifo")
    os.mkdir(top + b"/fifo")
    os.rename(top + b"/empty", top + b"/renamed")
    os.removexattr(top + b"/hole", "system.posix_acl_access")
    os.utime(top + b"/renamed", ns=(7, 7))


# ------------------------------------------------------------------------------------------ PostgreSQL


class Ledger:
    """Writers whose every commit is numbered and noted outside the database, with the moment of its acknowledgement."""

    def __init__(self, conninfo: str) -> None:
        self.acknowledged: list[tuple[int, int, int]] = []  # writer, number, nanoseconds since 1970
        self._numbers = [0, 0, 0]
        self._conninfo = conninfo
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._stop.clear()
        self._threads = [threading.Thread(target=self._write, args=(writer,)) for writer in range(3)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self, found: set[tuple[int, int]], at: int) -> None:
        """What was acknowledged before `at` is in, and of each writer nothing without what it did before."""
        due = {(writer, number) for writer, number, when in self.acknowledged if when < at}
        assert due
        assert due <= found, f"{len(due - found)} acknowledged commits are missing"
        assert any(when > at for _, _, when in self.acknowledged), "the writers stopped too early"
        for writer in range(3):
            numbers = sorted(number for one, number in found if one == writer)
            assert numbers == list(range(1, len(numbers) + 1))

    def _write(self, writer: int) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            while not self._stop.is_set():
                self._numbers[writer] += 1
                connection.execute("INSERT INTO ledger VALUES (%s, %s)", (writer, self._numbers[writer]))
                self.acknowledged.append((writer, self._numbers[writer], time.time_ns()))
                time.sleep(0.01)


_UNTOUCHED = "SELECT count(*), md5(string_agg(d::text, '' ORDER BY id)) FROM deeds d"
_SUMS = """SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
                  (SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"""


@pytest.mark.integration
def test_a_bank_under_load_comes_back() -> None:
    _bank(17, scale=2, transactions=300)


@pytest.mark.long
@pytest.mark.integration
@pytest.mark.parametrize("major", [15, 17, 18])
def test_a_big_bank_under_load_comes_back(major: int) -> None:
    if major not in binaries.available():
        pytest.fail(f"PostgreSQL {major} is not installed here")
    _bank(major, scale=110, transactions=3000)


def _program(name: str, major: int) -> Path:
    path = binaries.find(major) / name
    assert path.exists(), path
    return path


@contextmanager
def _pgbench(source: Cluster, *options: str) -> Iterator[None]:  # type: ignore[misc]
    """pgbench in the background until the end of the block."""
    command = [_program("pgbench", source.major), "-n", "-c", "3", *options, source.conninfo]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield
        assert running.poll() is None, "pgbench ended too early"
    finally:
        running.terminate()
        running.communicate()


def _bank(major: int, *, scale: int, transactions: int) -> None:
    settings = {"max_wal_size": "4GB"} if scale > 10 else {}
    with workspace() as folder, cluster(major, settings=settings, folder=folder) as source:
        initialise = [_program("pgbench", major), "-i", "-q", "-s", str(scale), source.conninfo]
        subprocess.run(initialise, check=True, capture_output=True)
        source.run(
            "CREATE TABLE ledger (writer int, number int, PRIMARY KEY (writer, number))",
            "CREATE TABLE deeds AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 20000) g",
        )
        untouched = source.run(_UNTOUCHED)
        (size,) = source.run("SELECT pg_database_size('postgres') >> 20")
        world = _world(folder, PostgresRegister(source.conninfo))
        ledger = Ledger(source.conninfo)
        made: list[Protected] = []
        for turn in ("first", "second"):
            if turn == "second":
                each = str(transactions // 3)
                more = [_program("pgbench", major), "-n", "-c", "3", "-t", each, source.conninfo]
                subprocess.run(more, check=True, capture_output=True)
            with ledger, _pgbench(source, "-T", "3600", "-R", "200"):
                time.sleep(0.5)
                with _measured(f"PostgreSQL {major}, {size[0]} MB, {turn} protect") as told:
                    made.append(world.protect(patience_seconds=60))
                    _figures(told, made[-1])
                time.sleep(0.3)
        assert made[1].stored_bytes < made[0].stored_bytes
        source.stop()
        try:
            for done in reversed(made):
                with _measured(f"PostgreSQL {major}, restore {done.sequence}"):
                    restored = world.restore(
                        folder / "back", sequence=done.sequence, rebuilder=PostgresRebuilder()
                    )
                assert restored.rebuilt is not None
                assert {check.level for check in restored.rebuilt.checks} == {"ok"}, restored.rebuilt.checks
                _check_bank(folder, major, ledger, done, untouched)
                shutil.rmtree(folder / "back")
        finally:
            source.start()


def _check_bank(folder: Path, major: int, ledger: Ledger, done: Protected, untouched: list[Any]) -> None:
    runtime = PostgresRuntime(folder / "run-back", start_seconds=120)
    service = runtime.start("back", folder / "back")
    try:
        with psycopg.connect(service.address, autocommit=True) as connection:
            found = {(row[0], row[1]) for row in connection.execute("SELECT writer, number FROM ledger")}
            ledger.check(found, done.consistent_at)
            sums = connection.execute(_SUMS).fetchall()[0]
            assert len(set(sums)) == 1, sums
            assert connection.execute(_UNTOUCHED.encode()).fetchall() == untouched
            connection.execute("CREATE EXTENSION amcheck")
        at = conninfo_to_dict(service.address)
        where = ["-h", str(at["host"]), "-p", str(at["port"]), "-U", str(at["user"]), "-d", "postgres"]
        amcheck = [_program("pg_amcheck", major), "--heapallindexed", *where]
        clean = subprocess.run(amcheck, capture_output=True, text=True, check=False)
        assert (clean.returncode, clean.stdout) == (0, ""), clean.stdout + clean.stderr
    finally:
        runtime.stop(service)


# ------------------------------------------------------------------------------------------ SQLite

_WRITER = """
import hashlib, sqlite3, sys, time
path, mode = sys.argv[1:]
db = sqlite3.connect(path, timeout=60, isolation_level=None)
db.execute(f"PRAGMA journal_mode={mode}")
number = db.execute("SELECT coalesce(max(number), 0) FROM log").fetchone()[0]
while True:
    number += 1
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO log VALUES (?, ?)", (number, hashlib.sha256(str(number).encode()).hexdigest()))
    db.execute("UPDATE ballast SET number = ? WHERE id = ?", (number, number * 7919 % 1000 + 1))
    db.execute("COMMIT")
    print(number, time.time_ns(), flush=True)
    time.sleep(0.002)
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_database_that_is_written_to_comes_back(tmp_path: Path, mode: str) -> None:
    _written(tmp_path, mode, mb=8, snapshots=2)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_big_database_that_is_written_to_comes_back(tmp_path: Path, mode: str) -> None:
    _written(tmp_path, mode, mb=1500, snapshots=4)
    shutil.rmtree(tmp_path, ignore_errors=True)


def _written(tmp_path: Path, mode: str, *, mb: int, snapshots: int) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA journal_mode={mode}")
        database.execute("CREATE TABLE log (number INTEGER PRIMARY KEY, body TEXT)")
        database.execute("CREATE TABLE ballast (id INTEGER PRIMARY KEY, number INTEGER, content BLOB)")
        rows = ((id_, os.urandom(mb * 1024)) for id_ in range(1, 1001))
        database.executemany("INSERT INTO ballast VALUES (?, 0, ?)", rows)
    world = _world(tmp_path, SqliteRegister(path))
    made: list[Protected] = []
    command = [sys.executable, "-c", _WRITER, path, mode]
    with (tmp_path / "acknowledged").open("wb") as notes, subprocess.Popen(command, stdout=notes) as writer:
        try:
            for _ in range(snapshots):
                time.sleep(0.4)
                with _measured(f"SQLite, {mode}, protect") as told:
                    made.append(world.protect())
                    _figures(told, made[-1])
            time.sleep(0.3)
            assert writer.poll() is None
        finally:
            writer.kill()
    lines = [line.split() for line in (tmp_path / "acknowledged").read_text().splitlines()]
    acknowledged = [(int(line[0]), int(line[1])) for line in lines if len(line) == 2]
    for done in made:
        due = max(number for number, when in acknowledged if when < done.consistent_at)
        with _measured(f"SQLite, {mode}, restore {done.sequence}"):
            world.restore(tmp_path / "back", sequence=done.sequence, rebuilder=SqliteRebuilder())
        with closing(sqlite3.connect(tmp_path / "back" / "log.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            log = database.execute("SELECT number, body FROM log ORDER BY number").fetchall()
            assert log == [(n, hashlib.sha256(str(n).encode()).hexdigest()) for n in range(1, len(log) + 1)]
            assert due <= len(log) <= acknowledged[-1][0] + 1
            newest = database.execute("SELECT max(number) FROM ballast").fetchone()[0]
            assert newest == len(log), "a torn transaction"
        shutil.rmtree(tmp_path / "back")
    assert made[-1].stored_bytes < made[0].stored_bytes / 2


# ------------------------------------------------------------------------------------------ one large file


def test_a_mixed_file_comes_back(tmp_path: Path) -> None:
    _mixed(tmp_path, size=48 << 20)


@pytest.mark.long
def test_a_file_of_ten_gigabytes_comes_back(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    if free < 30 * GB:
        pytest.fail(f"needs 30 GB of room, and {tmp_path} has {free / GB:.1f}")
    try:
        _mixed(tmp_path, size=10 * GB)
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)


def _mixed(tmp_path: Path, *, size: int) -> None:
    """A third holes, a third chance, a third text that repeats itself."""
    tree = tmp_path / "tree"
    tree.mkdir()
    piece = 4 << 20
    text = b"".join(b"line %d of the register of land, unchanged since 1889\n" % n for n in range(100_000))[
        :piece
    ]
    with (tree / "large").open("wb") as file:
        for number in range(size // piece):
            match number % 3:
                case 0:
                    file.seek(piece, os.SEEK_CUR)
                case 1:
                    file.write(os.urandom(piece))
                case _:
                    file.write(b"%d" % number + text)
        file.truncate(size + 12_345)
    world = _world(tmp_path, FilesRegister(tree), sites=1)
    with _measured("one large file, protect") as told:
        done = world.protect()
        _figures(told, done)
    assert told["stored_mb"] < (size >> 20) * 0.4
    with _measured("one large file, restore"):
        world.restore(tmp_path / "back")
    assert compare(tree, tmp_path / "back") == []
    with (tree / "large").open("r+b") as file:
        file.seek(size // 2)
        file.write(b"one change in the middle")
    with _measured("one large file, protect again") as told:
        done = world.protect()
        _figures(told, done)
    assert done.stored_bytes < 3 << 20
