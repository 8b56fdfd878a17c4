"""A cluster captured while it is written to starts elsewhere with everything acknowledged before that instant."""

import threading
import time
from contextlib import contextmanager

import psycopg
import pytest

from exclave.registers.postgres import binaries
from exclave.registers.postgres.checks import after_start
from exclave.registers.postgres.rebuild import PostgresRebuilder
from exclave.registers.postgres.register import PostgresRegister
from exclave.runtimes.postgres import PostgresRuntime
from exclave.testing.observing import Remembered, observe
from exclave.testing.postgres import cluster, lay_out, own, workspace

pytestmark = pytest.mark.integration


@pytest.fixture(params=binaries.available())
def running(request):
    with cluster(request.param) as made:
        yield made


@pytest.fixture
def folder():
    with workspace() as made:
        yield made


def captured(conninfo):
    return observe(PostgresRegister(conninfo), Remembered())


def restored(seen, place):
    lay_out(seen.content, seen.remembered.folders, place)
    return PostgresRebuilder().finish(place, seen.environment)


@contextmanager
def started(place, folder):
    runtime = PostgresRuntime(folder / "run", start_seconds=60)
    service = runtime.start("restored", place)
    try:
        yield service
    finally:
        runtime.stop(service)


def asked(address, query, dbname="postgres"):
    with psycopg.connect(address, dbname=dbname, autocommit=True) as connection:
        return connection.execute(query).fetchall()


_SUMS = """SELECT (SELECT md5(string_agg(l::text, '' ORDER BY id)) FROM land l),
                  (SELECT md5(string_agg(p::text, '' ORDER BY id)) FROM parcels p),
                  (SELECT count(*) FROM land WHERE deed = md5('77'))"""


def test_everything_is_there_and_sound(running, folder):
    (folder / "space").mkdir(mode=0o700)
    own(folder / "space")
    running.run(
        "CREATE TABLE land AS SELECT g AS id, md5(g::text) AS deed FROM generate_series(1, 30000) g",
        "CREATE INDEX ON land (deed)",
        f"CREATE TABLESPACE far LOCATION '{folder / 'space'}'",
        "CREATE TABLE parcels TABLESPACE far AS SELECT * FROM land",
        "CREATE UNLOGGED TABLE sessions AS SELECT 1 AS a",
        "SELECT lo_from_bytea(4711, decode(repeat('00ff', 100000), 'hex'))",
        "CREATE DATABASE taxes",
        "CREATE ROLE clerk LOGIN PASSWORD 'not to be told'",
    )
    before = running.run(_SUMS)
    seen = captured(running.conninfo)
    assert "not to be told" not in str(seen.environment)
    assert "SCRAM" not in str(seen.environment)
    assert not seen.environment["unread"]
    assert {base["name"] for base in seen.environment["databases"]} == {
        "postgres",
        "taxes",
        "template0",
        "template1",
    }
    assert [space["location"] for space in seen.environment["tablespaces"]] == [str(folder / "space")]
    running.stop()
    try:
        place = folder / "restored"
        made = restored(seen, place)
        assert {check.level for check in made.checks} == {"ok"}
        assert made.checks[0].id == "backup-verified"
        with started(place, folder) as service:
            assert asked(service.address, _SUMS) == before
            assert asked(service.address, "SELECT count(*) FROM sessions") == [(0,)], (
                "unlogged tables arrive empty"
            )
            (lob,) = asked(service.address, "SELECT md5(lo_get(4711)), length(lo_get(4711))")
            assert lob[1] == 200_000
            assert asked(service.address, "SELECT 1", dbname="taxes") == [(1,)]
            where = asked(
                service.address, "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname='far'"
            )
            assert where == [(str(place.with_name("restored-tablespaces") / where[0][0].rpartition("/")[2]),)]
            findings = after_start(service.address, seen.environment)
            assert {finding.level for finding in findings} == {"ok"}, findings
            assert {"timeline-own", "indexes-checked"} <= {finding.id for finding in findings}
            assert asked(service.address, "SELECT count(*) FROM pg_extension WHERE extname = 'amcheck'") == [
                (0,)
            ]
            assert asked(service.address, "SHOW listen_addresses") == [("",)]
        assert PostgresRebuilder().finish(place, seen.environment).checks[0].id == "rebuilt-before"
        with started(place, folder) as service:
            assert asked(service.address, _SUMS) == before
    finally:
        running.start()


class Writers:
    """Threads that commit, and note when each commit was acknowledged."""

    def __init__(self, conninfo, count=3):
        self.acknowledged: list[tuple[int, int, int]] = []  # writer, number, when (ns)
        self._conninfo, self._stopping = conninfo, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(writer,)) for writer in range(count)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, writer):
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            if writer == 0:
                connection.execute("SET synchronous_commit = off")
            number = 0
            while not self._stopping.is_set():
                number += 1
                with connection.transaction():
                    connection.execute(
                        "INSERT INTO deeds VALUES (%s, %s, repeat('x', 200))", (writer, number)
                    )
                    connection.execute("UPDATE purse SET held = held - 1 WHERE id = %s", (writer,))
                    connection.execute("UPDATE purse SET held = held + 1 WHERE id = %s", ((writer + 7) % 10,))
                self.acknowledged.append((writer, number, time.time_ns()))


def test_what_was_acknowledged_before_the_instant_is_there(running, folder):
    running.run(
        "CREATE TABLE deeds (writer int, number int, text text, PRIMARY KEY (writer, number))",
        "CREATE TABLE purse AS SELECT g AS id, 1000 AS held FROM generate_series(0, 9) g",
        "CREATE TABLE ballast AS SELECT g AS id, repeat(md5(g::text), 20) AS t FROM generate_series(1, 100000) g",
    )
    with Writers(running.conninfo) as writers:
        time.sleep(0.5)
        seen = captured(running.conninfo)
        time.sleep(0.3)
    due = {(writer, number) for writer, number, when in writers.acknowledged if when < seen.consistent_at}
    assert due, "the writers did nothing before the instant"
    assert any(when > seen.consistent_at for _, _, when in writers.acknowledged), (
        "the writers stopped too early"
    )
    place = folder / "restored"
    restored(seen, place)
    with started(place, folder) as service:
        found = set(asked(service.address, "SELECT writer, number FROM deeds"))
        assert due <= found, f"{len(due - found)} acknowledged rows are missing"
        for writer in range(3):
            numbers = sorted(number for who, number in found if who == writer)
            assert numbers == list(range(1, len(numbers) + 1)), "a later commit without an earlier one"
        assert asked(service.address, "SELECT sum(held) FROM purse") == [(10_000,)], "a torn transaction"
        levels = {finding.level for finding in after_start(service.address, seen.environment)}
        assert levels == {"ok"}


def test_home_settings_travel_but_do_not_act(folder):
    settings = {
        "archive_mode": "on",
        "archive_command": "echo swordfish; false",
        "synchronous_standby_names": "nobody",
        "work_mem": "7MB",
        "max_connections": "77",
        "shared_preload_libraries": "pg_stat_statements",
    }
    with cluster(17, settings=settings) as home:
        home.run(
            "SET synchronous_commit = local",
            "ALTER SYSTEM SET random_page_cost = 1.5",
            "SELECT pg_reload_conf()",
        )
        home.run("SET synchronous_commit = local", "CREATE ROLE boss SUPERUSER LOGIN")
        seen = captured(home.conninfo)
    assert "swordfish" not in str(seen.environment)
    assert seen.environment["shared_preload_libraries"] == "pg_stat_statements"
    place = folder / "restored"
    restored(seen, place)
    with started(place, folder) as service:
        wanted = {
            "archive_mode": "off",
            "synchronous_standby_names": "",
            "work_mem": "7MB",
            "max_connections": "77",
            "random_page_cost": "1.5",
            "shared_preload_libraries": "pg_stat_statements",
        }
        found = {name: asked(service.address, f"SHOW {name}")[0][0] for name in wanted}
        assert found == wanted
        with psycopg.connect(service.address, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE t AS SELECT 1", prepare=False
            )  # a commit that waits for no standby


def test_a_lost_file_is_noticed_before_anything_is_changed(folder):
    with cluster(17) as home:
        seen = captured(home.conninfo)
    place = folder / "restored"
    lay_out(seen.content, seen.remembered.folders, place)
    victim = next(path for path in sorted(seen.content) if path.startswith(b"base/"))
    (place / victim.decode()).unlink()
    with pytest.raises(Exception, match="not what the server sent") as caught:
        PostgresRebuilder().finish(place, seen.environment)
    assert caught.value.id == "backup-not-whole"
    assert victim.decode() in caught.value.why
    assert (place / "tablespace_map").read_bytes() == seen.content[b"tablespace_map"]
    assert not (place / "recovery.signal").exists()


def test_a_short_last_segment_loses_nothing(folder):
    """As the journal will leave it: a tail without the zeros that PostgreSQL expects after it."""
    with cluster(17) as home:
        home.run("CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g")
        seen = captured(home.conninfo)
    place = folder / "restored"
    lay_out(seen.content, seen.remembered.folders, place)
    segment = max(path for path in seen.content if path.startswith(b"pg_wal/0") and path.count(b"/") == 1)
    path = place / segment.decode()
    data = path.read_bytes()
    path.write_bytes(data.rstrip(b"\0"))
    assert path.stat().st_size < len(data)
    PostgresRebuilder().finish(place, seen.environment)
    assert path.read_bytes() == data
    with started(place, folder) as service:
        assert asked(service.address, "SELECT count(*) FROM t") == [(1000,)]


def test_a_damaged_index_is_found():
    """An index whose order its function no longer has is what a changed collation leaves behind."""
    with cluster(17) as home:
        home.run(
            "CREATE TABLE t AS SELECT g FROM generate_series(1, 1000) g",
            "CREATE INDEX broken ON t (g)",
            "UPDATE pg_index SET indoption = '1' WHERE indexrelid = 'broken'::regclass",
        )
        findings = after_start(home.conninfo, {})
        assert [finding.level for finding in findings if finding.id == "index-damaged"] == ["fail"]
        assert "broken" in str(findings)


def test_a_server_that_is_gone_is_a_finding():
    assert [finding.id for finding in after_start("host=/nowhere/at/all", {})] == ["cluster-unanswering"]


def _wait(ready, seconds=60):
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def test_a_standby_is_a_source_too(folder):
    """Its instant is that of the last transaction it replayed, by the primary's clock."""
    with cluster(17) as home:
        home.run("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
        seen = captured(home.conninfo)
        place = folder / "standby"
        lay_out(seen.content, seen.remembered.folders, place)
        (place / "standby.signal").touch()
        with (place / "postgresql.auto.conf").open("a") as stream:
            stream.write("primary_conninfo = '{}'\n".format(home.conninfo.replace("dbname=postgres", "")))
        place.chmod(0o700)
        own(place)
        runtime = StandbyRuntime(folder / "run", settings={"shared_buffers": "16MB"}, start_seconds=60)
        service = runtime.start("standby", place)
        try:
            home.run("INSERT INTO t VALUES (2)")
            acknowledged = time.time_ns()
            home.run("INSERT INTO t VALUES (3)")
            _wait(lambda: asked(service.address, "SELECT count(*) FROM t") == [(3,)])
            home.run("CHECKPOINT")
            asked(service.address, "SELECT 1")
            with psycopg.connect(service.address, autocommit=True) as connection:
                connection.execute("CHECKPOINT")  # on a standby: a restartpoint
            again = captured(service.address)
            assert again.environment["system_identifier"] == seen.environment["system_identifier"]
            assert again.consistent_at <= time.time_ns()
        finally:
            runtime.stop(service)
    copy = folder / "copy"
    restored(again, copy)
    with started(copy, folder) as service:
        found = {row[0] for row in asked(service.address, "SELECT n FROM t")}
        assert {1} <= found
        if again.consistent_at > acknowledged:
            assert 2 in found
        assert "fail" not in {finding.level for finding in after_start(service.address, again.environment)}


class StandbyRuntime(PostgresRuntime):
    """Ready as soon as it answers, although it only reads."""

    def _ready(self, address):
        try:
            return asked(address, "SELECT pg_is_in_recovery()") == [(True,)]
        except psycopg.OperationalError:
            return False
