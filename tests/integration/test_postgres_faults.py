"""What goes wrong at a PostgreSQL source is told as our error, leaves nothing behind, and never a false snapshot."""

import os
import signal
import subprocess
import sys
import time

import pytest

from exclave.errors import Misconfigured, Tampered, Unreachable
from exclave.registers.postgres.register import PostgresRegister
from exclave.registers.slabs import Slab
from exclave.testing.observing import GuardedPool, Remembered, observe
from exclave.testing.postgres import cluster

pytestmark = pytest.mark.integration

_RULES = (
    "local all postgres trust",
    "local replication postgres trust",
    "local replication bare trust",  # may replicate, may not connect to any database
    "local all all scram-sha-256",
    "local replication all scram-sha-256",
)


@pytest.fixture(scope="module", params=[17, 18])
def home(request):
    with cluster(request.param, rules=_RULES) as made:
        made.run(
            "CREATE TABLE land AS SELECT g AS id, repeat(md5(g::text), 20) AS deed FROM generate_series(1, 60000) g",
            "CREATE ROLE backup LOGIN REPLICATION PASSWORD 'swordfish'",
            "CREATE ROLE reader LOGIN PASSWORD 'swordfish'",
            "CREATE ROLE bare LOGIN REPLICATION",
            "CHECKPOINT",
        )
        yield made


def register(home, user, tmp_path, password="swordfish"):
    secret = tmp_path / "password"
    secret.write_text(password + "\n")
    secret.chmod(0o600)
    return PostgresRegister(home.conninfo_of(user=user), password_file=secret)


def slots_left(home):
    deadline = time.monotonic() + 60
    while home.run("SELECT slot_name FROM pg_replication_slots"):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.05)
    return False


def test_a_role_with_replication_alone_is_enough(home, tmp_path):
    seen = observe(register(home, "backup", tmp_path), Remembered())
    assert seen.position
    assert {lack["what"] for lack in seen.environment["unread"]} == {"shared_preload_libraries"}
    findings = register(home, "backup", tmp_path).doctor()
    assert "source-environment-unread" in {finding.id for finding in findings}
    assert "fail" not in {finding.level for finding in findings}


def test_without_any_database_the_instant_is_the_beginning(home, tmp_path):
    before = time.time_ns()
    source = register(home, "bare", tmp_path)
    seen = observe(source, Remembered())
    assert before <= seen.consistent_at <= time.time_ns()
    assert seen.environment["unread"][0]["what"] == "catalogues"
    assert seen.environment["system_identifier"]
    assert source.size_hint() == 0
    assert "source-catalogues-unread" in {finding.id for finding in source.doctor()}


def test_a_wrong_password(home, tmp_path):
    source = register(home, "backup", tmp_path, password="hunter2hunter2")
    with pytest.raises(Misconfigured) as caught:
        observe(source, Remembered())
    assert caught.value.id == "source-login-refused"
    assert (
        "hunter2"
        not in f"{caught.value} {caught.value.why} {caught.value.__cause__} {caught.value.__context__}"
    )
    assert source.doctor()[0].level == "fail"
    assert source.doctor()[0].hint


def test_a_role_that_may_not_replicate(home, tmp_path):
    with pytest.raises(Misconfigured) as caught:
        observe(register(home, "reader", tmp_path), Remembered())
    assert caught.value.id == "source-permission"


def test_a_role_that_is_not_there(home, tmp_path):
    with pytest.raises(Misconfigured) as caught:
        observe(register(home, "nobody_at_all", tmp_path), Remembered())
    assert caught.value.id == "source-login-refused"


def test_a_server_that_is_stopped(home, tmp_path):
    home.stop()
    try:
        source = register(home, "backup", tmp_path)
        with pytest.raises(Unreachable) as caught:
            observe(source, Remembered())
        assert caught.value.id == "source-unreachable"
        assert source.size_hint() == 0
    finally:
        home.start()


@pytest.mark.parametrize("after", [0, 3])
def test_a_connection_cut_in_the_middle(home, after):
    pool = GuardedPool()
    with pytest.raises(Unreachable) as caught:
        _cut_after(home, pool, after)
    assert caught.value.id in {"source-unreachable", "source-failed"}
    assert pool.out == 0
    assert not slots_left(home)


def _cut_after(home, pool, after):
    source = PostgresRegister(home.conninfo)
    with source.capture(Remembered(), pool, lambda _files, _bytes: None) as capture:
        for number, event in enumerate(capture.changes()):
            if isinstance(event, Slab):
                event.release()
            if number == after:
                home.run(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE backend_type = 'walsender'"
                )


def test_a_slot_holds_the_wal_only_while_we_read(home):
    pool = GuardedPool()
    with PostgresRegister(home.conninfo).capture(Remembered(), pool, lambda _files, _bytes: None) as capture:
        events = capture.changes()
        next(events).release()
        kept = home.run("SELECT temporary, restart_lsn IS NOT NULL FROM pg_replication_slots")
        assert kept == [(True, True)]
    assert pool.out == 0
    assert not slots_left(home)


def test_nothing_is_left_when_we_are_killed(home):
    program = (
        "import sys, time\n"
        "from exclave.registers.postgres.register import PostgresRegister\n"
        "from exclave.registers.slabs import SlabPool\n"
        "from exclave.testing.observing import Remembered\n"
        "register = PostgresRegister(sys.argv[1])\n"
        "with register.capture(Remembered(), SlabPool(), lambda files, size: None) as capture:\n"
        "    for event in capture.changes():\n"
        "        print('reading', flush=True)\n"
        "        time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, home.conninfo]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout.readline() == b"reading\n"
        assert home.run("SELECT count(*) FROM pg_replication_slots") == [(1,)]
        child.send_signal(signal.SIGKILL)
    assert not slots_left(home)
    # A walsender notices that its reader is gone when it next writes to it.
    deadline = time.monotonic() + 60
    while home.run("SELECT count(*) FROM pg_stat_replication") != [(0,)]:
        assert time.monotonic() < deadline, "a connection is left at the source"
        time.sleep(0.1)


@pytest.mark.parametrize("major", [17, 18])
def test_a_damaged_page_is_an_alarm(major):
    with cluster(major) as home:
        home.run("CREATE TABLE land AS SELECT g AS id FROM generate_series(1, 5000) g", "CHECKPOINT")
        (path,) = home.run("SELECT pg_relation_filepath('land')")[0]
        with (home.place / path).open("r+b") as stream:
            stream.seek(8192 * 3 + 5000)
            stream.write(b"\xff\x00\xff")
        with pytest.raises(Tampered) as caught:
            observe(PostgresRegister(home.conninfo), Remembered())
        assert caught.value.id == "source-damaged"
        assert path in caught.value.why
        assert "block 3" in caught.value.why


def test_without_checksums_the_doctor_says_so():
    with cluster(17, checksums=False, settings={"wal_sender_timeout": "5s"}) as home:
        levels = {finding.id: finding.level for finding in PostgresRegister(home.conninfo).doctor()}
        assert levels["source-checksums"] == "warn"
        assert levels["source-sender-timeout"] == "warn"
        assert not observe(PostgresRegister(home.conninfo), Remembered()).environment["data_checksums"]


def test_settings_that_forbid_a_backup():
    with cluster(17, settings={"wal_level": "minimal", "max_wal_senders": "0"}) as home:
        source = PostgresRegister(home.conninfo)
        findings = source.doctor()
        assert findings[0].level == "fail"
        assert "max_wal_senders" in findings[0].text
        with pytest.raises(Unreachable):
            observe(source, Remembered())


def test_no_free_slot_is_no_obstacle():
    with cluster(17, settings={"max_replication_slots": "1"}) as home:
        home.run("SELECT pg_create_physical_replication_slot('another')")
        assert observe(PostgresRegister(home.conninfo), Remembered()).position
    with cluster(17, settings={"max_replication_slots": "0"}) as home:
        assert observe(PostgresRegister(home.conninfo), Remembered()).position
