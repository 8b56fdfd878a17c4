"""Services are started for real, outlive who started them, and are stopped by another process."""

import http.client
import os
import shutil
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import psycopg
import pytest

from exclave.errors import Busy, Misconfigured
from exclave.registers.postgres import binaries
from exclave.runtimes import account as accounts
from exclave.runtimes import base
from exclave.runtimes.postgres import PostgresRuntime, initdb
from exclave.runtimes.static import StaticRuntime
from exclave.testing.postgres import workspace

pytestmark = pytest.mark.integration


@pytest.fixture
def folder():
    with workspace() as made:
        yield made


@pytest.fixture
def gazette(tmp_path):
    place = tmp_path / "gazette"
    (place / "2026").mkdir(parents=True)
    (place / "2026" / "1.html").write_text("<p>No. 1")
    (tmp_path / "secret").write_text("secret")
    (place / "out").symlink_to(tmp_path / "secret")
    runtime = StaticRuntime(tmp_path / "run")
    service = runtime.start("gazette", place)
    yield runtime, service
    runtime.stop(service)


def _get(service, path, method="GET"):
    parts = urlsplit(service.address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_documents_are_served(gazette):
    runtime, service = gazette
    assert urlsplit(service.address).hostname == "127.0.0.1"
    status, body, headers = _get(service, "/2026/1.html")
    assert (status, body, headers["Content-Type"]) == (200, b"<p>No. 1", "text/html; charset=utf-8")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert _get(service, "/2026/1.html", "HEAD")[:2] == (200, b"")
    assert b"1.html" in _get(service, "/2026/")[1]
    assert _get(service, "/2026")[2]["Location"] == "/2026/"
    assert _get(service, "//example.org/..")[0] in {403, 404}
    assert _get(service, "/out")[0] == 403
    assert _get(service, "/%2e%2e/secret")[0] == 403
    assert _get(service, "/a%00b")[0] == 400
    assert _get(service, "/none")[0] == 404
    assert _get(service, "/2026/1.html", "PUT")[0] == 501
    assert runtime.healthy(service)
    assert [finding.id for finding in runtime.check(service, {})] == ["documents-answer"]
    with pytest.raises(Busy):
        runtime.start("gazette", service.place)


def test_another_process_stops_it(gazette):
    runtime, service = gazette
    program = (
        "import sys; from pathlib import Path; from exclave.runtimes import base; "
        "from exclave.runtimes.static import StaticRuntime; folder = Path(sys.argv[1]); "
        "StaticRuntime(folder).stop(base.recall(folder, 'gazette'))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", program, str(runtime.folder)], check=True, env=environment)
    assert not runtime.healthy(service)
    assert [finding.level for finding in runtime.check(service, {})] == ["fail"]
    assert base.services(runtime.folder) == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(service.address, timeout=5)


def test_a_place_that_is_no_folder(tmp_path):
    with pytest.raises(Misconfigured) as caught:
        StaticRuntime(tmp_path).start("x", tmp_path / "none")
    assert caught.value.id == "place-missing"


def test_a_cluster_answers_on_its_private_socket_alone(folder):
    place = folder / "data"
    initdb(place, 17)
    runtime = PostgresRuntime(folder / "run", start_seconds=60)
    service = runtime.start("land", place)
    try:
        assert runtime.healthy(service)
        assert {finding.level for finding in runtime.check(service, {})} == {"ok"}
        mode = service.private.stat()
        assert stat.S_IMODE(mode.st_mode) == 0o700
        owner = accounts.unprivileged()
        assert os.stat(f"/proc/{service.pid}").st_uid == (owner.uid if owner else os.getuid())
        with psycopg.connect(service.address) as connection:
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        with pytest.raises(Busy):
            runtime.start("land", place)
    finally:
        runtime.stop(service)
    runtime.stop(service)
    assert not service.private.exists()
    assert not runtime.healthy(service)


def test_tcp_when_asked_needs_a_password(folder):
    place = folder / "data"
    initdb(place, 17)
    runtime = PostgresRuntime(folder / "run", port=0, start_seconds=60)
    service = runtime.start("land", place)
    try:
        with psycopg.connect(service.address, autocommit=True) as connection:
            port = connection.info.port
            connection.execute("CREATE ROLE clerk LOGIN PASSWORD 'swordfish'")
        reached = {"host": "127.0.0.1", "port": port, "user": "clerk", "dbname": "postgres"}
        with psycopg.connect(**reached, password="swordfish") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("clerk",)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(**{**reached, "user": "postgres"})
    finally:
        runtime.stop(service)


def test_a_broken_cluster_says_the_end_of_its_log(folder):
    place = folder / "data"
    initdb(place, 17)
    (place / "global" / "pg_control").write_bytes(b"\0" * 8192)
    with pytest.raises(Misconfigured) as caught:
        PostgresRuntime(folder / "run", start_seconds=60).start("land", place)
    assert caught.value.id == "service-start-failed"
    assert "initdb" in caught.value.why
    assert base.services(folder / "run") == []


def test_a_start_that_is_given_up_leaves_nothing_running(folder):
    place = folder / "data"
    initdb(place, 17)
    (place / "standby.signal").touch()  # it will never be writable
    accounts.hand_over(accounts.unprivileged(), place)
    with pytest.raises(Misconfigured, match="not ready"):
        PostgresRuntime(folder / "run", start_seconds=2).start("land", place)
    assert not (place / "postmaster.pid").exists()
    assert base.services(folder / "run") == []


def test_a_superuser_of_another_name_is_said(folder):
    place = folder / "data"
    initdb(place, 17)
    with (place / "postgresql.conf").open("a") as stream:
        stream.write("exclave.superuser = 'boss'\n")
    with pytest.raises(Misconfigured, match="does not let boss in"):
        PostgresRuntime(folder / "run", start_seconds=60).start("land", place)
    assert not (place / "postmaster.pid").exists()


def test_a_folder_that_is_no_cluster(folder):
    with pytest.raises(Misconfigured) as caught:
        PostgresRuntime(folder / "run").start("land", folder)
    assert caught.value.id == "not-a-cluster"


def test_versions_that_are_not_there():
    with pytest.raises(Misconfigured) as caught:
        binaries.find(13)
    assert caught.value.id == "postgres-binaries-missing"
    assert "postgresql-13" in caught.value.hint
    with pytest.raises(Misconfigured):
        binaries.find(18, configured=binaries.find(17))
    assert binaries.find(17, configured=binaries.find(17).parent) == binaries.find(17)


@pytest.mark.needs_root
def test_programs_out_of_reach_are_copied_whole(tmp_path):
    """As when the environment lives below /root."""
    tmp_path.chmod(0o700)
    original = binaries.find(18).parent
    install = tmp_path / "site" / original.parent.name / original.name
    shutil.copytree(original, install, symlinks=True)
    libraries = original.parent.with_name(f"{original.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, tmp_path / "site" / libraries.name)
    account = accounts.unprivileged()
    assert not accounts.can_reach(account, install / "bin")
    copied = accounts.within_reach(account, install / "bin")
    try:
        assert copied != install / "bin"
        assert accounts.within_reach(account, install / "bin") == copied, "made once"
        for program in ("postgres", "initdb", "psql"):
            done = subprocess.run(
                [copied / program, "--version"], user=account.uid, group=account.gid, extra_groups=[], cwd="/",
                capture_output=True, text=True, check=True, env={},
            )  # fmt: skip
            assert "(PostgreSQL) 18" in done.stdout
    finally:
        shutil.rmtree(copied.parents[2])


@pytest.mark.needs_root
def test_a_place_out_of_reach_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(Misconfigured) as caught:
        initdb(tmp_path / "data", 17)
    assert caught.value.id == "place-not-reachable"
    assert "may not enter" in caught.value.why
