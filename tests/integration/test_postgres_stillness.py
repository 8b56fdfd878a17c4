"""A cluster in which nothing happened is not read again; whatever a restore would give back is noticed."""

import os
import random
import time

import psycopg
import pytest

from exclave.embassies.embassy import Embassy
from exclave.listing import CTIME, DEVICE, INODE, ROOT
from exclave.registers.postgres import binaries
from exclave.registers.postgres.rebuild import PostgresRebuilder
from exclave.registers.postgres.register import PostgresRegister
from exclave.registers.postgres.stillness import TRUSTED_NS
from exclave.runtimes.postgres import PostgresRuntime
from exclave.stores.directory import DirectoryStore
from exclave.testing.observing import Remembered, observe
from exclave.testing.postgres import cluster, lay_out, own, workspace
from exclave.testing.world import World

pytestmark = pytest.mark.integration

_VERSIONS = [major for major in binaries.available() if major >= 14]
_QUIET_SECONDS = 3.1  # until the server's whole seconds tell a file's age


@pytest.fixture(scope="module", params=_VERSIONS)
def home(request):
    with cluster(request.param, settings={"autovacuum": "off"}) as made:
        made.run(
            "CREATE TABLE land AS SELECT g AS id, md5(g::text) AS deed FROM generate_series(1, 5000) g",
            "CREATE TABLE gone (id int)",
            "CREATE SEQUENCE numbers",
            "CREATE ROLE clerk",
            "VACUUM ANALYZE",
        )
        time.sleep(_QUIET_SECONDS)
        yield made


def _still(register, seen, after=""):
    """The next capture, which must find nothing to read."""
    again = observe(register, seen.remembered)
    assert not again.slabs, f"it was read although nothing had changed {after}"
    assert again.same >= set(seen.remembered.folders) - {b""}
    assert again.content == seen.content
    assert again.consistent_at > seen.consistent_at
    return again


def _settled(register):
    """A capture of all, whose next one will find nothing to read."""
    seen = observe(register, Remembered())
    if seen.remembered.folders[b""].stats[0, CTIME] == 0:
        time.sleep(_QUIET_SECONDS)
    return observe(register, seen.remembered)


def _edit(home, name, text):
    with (home.place / name).open("a") as stream:
        stream.write(text)


def _rewrite(home):
    """The same size and modification time, other content."""
    path = home.place / "pg_ident.conf"
    was = path.stat()
    path.write_text(path.read_text().replace("e", "E"))
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


def _commit_unwritten(home):
    """Acknowledged before its record is on disk."""
    with home.connect() as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("DELETE FROM land WHERE id = 17")


_CHANGES = {
    "insert": lambda home: home.run("INSERT INTO land VALUES (0, 'new')"),
    "unwritten commit": _commit_unwritten,
    "update": lambda home: home.run("UPDATE land SET deed = 'sold' WHERE id = 7"),
    "vacuum": lambda home: home.run("DELETE FROM land WHERE id % 2 = 0", "VACUUM land"),
    "create database": lambda home: home.run("CREATE DATABASE taxes"),
    "drop database": lambda home: home.run("DROP DATABASE taxes"),
    "drop table": lambda home: home.run("DROP TABLE gone"),
    "nextval": lambda home: home.run("SELECT nextval('numbers')"),
    "nextval again": lambda home: home.run("SELECT nextval('numbers')"),
    "setval": lambda home: home.run("SELECT setval('numbers', 4711)"),
    "large object": lambda home: home.run("SELECT lo_from_bytea(0, 'deed')"),
    "role": lambda home: home.run("ALTER ROLE clerk LOGIN"),
    "setting of a role": lambda home: home.run("ALTER ROLE clerk SET work_mem = '5MB'"),
    "unlogged": lambda home: home.run("ALTER TABLE land SET UNLOGGED"),
    "logged": lambda home: home.run("ALTER TABLE land SET LOGGED"),
    "comment": lambda home: home.run("COMMENT ON TABLE land IS 'ours'"),
    "message": lambda home: home.run("SELECT pg_logical_emit_message(false, 'a', 'b')"),
    "alter system": lambda home: home.run("ALTER SYSTEM SET work_mem = '6MB'"),
    "access rules": lambda home: _edit(home, "pg_hba.conf", "# another line\n"),
    "settings file": lambda home: _edit(home, "postgresql.conf", "# another line\n"),
    "another file": lambda home: _edit(home, "server.key", "secret"),
    "another file's end": lambda home: (home.place / "server.key").unlink(),
    "rewritten behind its time": _rewrite,
}


def test_each_change_is_noticed_and_rest_is_rest(home):
    register = PostgresRegister(home.conninfo)
    seen = _still(register, _settled(register))
    wanted = (
        _CHANGES
        if home.major == 17
        else {name: _CHANGES[name] for name in ("insert", "unwritten commit", "nextval", "access rules")}
    )
    for name, change in wanted.items():
        change(home)
        again = observe(register, seen.remembered)
        assert again.slabs, f"{name}: not noticed"
        assert not again.same
        if again.remembered.folders[b""].stats[0, CTIME] == 0:
            time.sleep(_QUIET_SECONDS)
            again = observe(register, again.remembered)
        seen = _still(register, again, after=f"since {name}")


def test_what_the_server_does_by_itself_is_no_change(home):
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    for statement in ("CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT", "SELECT count(*) FROM pg_class"):
        home.run(statement)
        seen = _still(register, seen)
    for _ in range(3):  # the server drops old WAL, so each look has to begin where the last one ended
        for statement in ("SELECT pg_switch_wal()", "CHECKPOINT"):
            home.run(statement)
            seen = _still(register, seen)


def test_wal_that_is_gone_is_not_quiet(home):
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    home.run("SELECT pg_logical_emit_message(false, 'a', 'b')", "SELECT pg_switch_wal()", "CHECKPOINT")
    assert observe(register, seen.remembered).slabs


def test_an_idle_cluster_costs_next_to_nothing(home):
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    began = time.process_time()
    _still(register, seen)
    assert time.process_time() - began < 0.3


def test_the_whole_of_a_still_snapshot_is_told_as_before(home):
    """Position, tablespaces and environment stand in the new snapshot too."""
    with workspace() as folder:
        register = PostgresRegister(home.conninfo)
        seen = _settled(register)
        again = _still(register, seen)
        assert again.position.endswith("@1")
        assert again.environment.keys() == seen.environment.keys()
        assert again.environment["tablespaces"] == seen.environment["tablespaces"] == []
        lay_out(again.content, again.remembered.folders, folder / "copy")
        assert (folder / "copy" / "backup_manifest").stat().st_size > 0


def test_a_damaged_or_foreign_memory_is_not_believed(home):
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    top = seen.remembered.folders[b""]
    row = top.names.index(ROOT)
    good = top.stats[row].copy()
    for column, value in (
        (CTIME, good[CTIME] ^ 1),
        (CTIME, 0),
        (INODE, good[INODE] + (1 << 30)),
        (INODE, 8),
        (INODE, 0),
        (DEVICE, good[DEVICE] - TRUSTED_NS),
        (DEVICE, good[DEVICE] + TRUSTED_NS),
        (DEVICE, 0),
    ):
        top.stats[row] = good
        top.stats[row, column] = value
        assert observe(register, seen.remembered).slabs, f"believed {value} in column {column}"


def test_a_lost_folder_means_reading_all(home):
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    del seen.remembered.folders[b"base"]
    assert observe(register, seen.remembered).slabs


def test_a_server_that_was_stopped_is_read():
    """While it is down its files can be changed without a record; and it may come back as another one."""
    with cluster(17) as home:
        time.sleep(_QUIET_SECONDS)
        seen = _settled(PostgresRegister(home.conninfo))
        seen = _still(PostgresRegister(home.conninfo), seen)
        home.stop()
        home.start()
        again = observe(PostgresRegister(home.conninfo), seen.remembered)
        assert again.slabs
        with cluster(17) as other:
            time.sleep(_QUIET_SECONDS)
            assert observe(PostgresRegister(other.conninfo), again.remembered).slabs


def test_the_role_needs_to_see_the_files(home):
    home.run("DROP ROLE IF EXISTS backup", "CREATE ROLE backup LOGIN REPLICATION")
    register = PostgresRegister(home.conninfo_of(user="backup"))
    seen = _settled(register)
    assert observe(register, seen.remembered).slabs
    assert "source-files-unseen" in {finding.id for finding in register.doctor()}
    home.run(
        "GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean) TO backup"
    )
    assert "source-files-unseen" not in {finding.id for finding in register.doctor()}
    _still(register, _settled(register))
    home.run(
        "REVOKE EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean) FROM backup"
    )
    home.run("DROP ROLE backup")


def test_a_still_snapshot_starts_abroad():
    """Through home's own catalogue and the sealed snapshots, with a tablespace."""
    with workspace() as folder, cluster(17, settings={"autovacuum": "off"}) as home:
        (folder / "space").mkdir(mode=0o700)
        own(folder / "space")
        home.run(
            f"CREATE TABLESPACE far LOCATION '{folder / 'space'}'",
            "CREATE TABLE land TABLESPACE far AS SELECT g AS id FROM generate_series(1, 1000) g",
            "VACUUM ANALYZE",
        )
        time.sleep(_QUIET_SECONDS)
        DirectoryStore.prepare(folder / "site")
        site = Embassy("site", DirectoryStore(folder / "site"))
        world = World(folder, PostgresRegister(home.conninfo), copies=1, embassies=[site])
        first = world.protect()
        home.run("CHECKPOINT")  # moves what is remembered
        still = [world.protect() for _ in range(3)]
        assert {done.new_bytes for done in still} == {0}
        assert {done.bytes for done in still} == {first.bytes}
        assert [done.consistent_at for done in still] == sorted({done.consistent_at for done in still})
        assert still[0].consistent_at > first.consistent_at
        assert still[1].position == still[2].position, "it was read: a backup moves the position"
        home.run("INSERT INTO land VALUES (0)")
        assert world.protect().new_bytes > 0
        world.restore(folder / "back", sequence=still[-1].sequence, rebuilder=PostgresRebuilder())
        runtime = PostgresRuntime(folder / "run", start_seconds=60)
        service = runtime.start("back", folder / "back")
        try:
            with psycopg.connect(service.address) as connection:
                assert connection.execute("SELECT count(*) FROM land").fetchall() == [(1000,)]
        finally:
            runtime.stop(service)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_many_changes_in_any_order(home, seed):
    chance = random.Random(seed)
    register = PostgresRegister(home.conninfo)
    seen = _settled(register)
    names = ["insert", "update", "nextval", "setval", "large object", "comment", "message", "role"]
    for step in range(40):
        change = chance.choice([None, None, "CHECKPOINT", "SELECT pg_switch_wal()", *names])
        if change in names:
            _CHANGES[change](home)
        elif change is not None:
            home.run(change)
        again = observe(register, seen.remembered)
        assert bool(again.slabs) == (change in names), f"seed {seed}, step {step}: {change}"
        seen = again
