"""The keyholder as a real process: what it gives, what it refuses, and when it forgets."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exclave.agents import channel
from exclave.agents.hardening import harden
from exclave.agents.keyholder_client import KeyholderClient
from exclave.charter.history import History
from exclave.errors import Misconfigured, NotThere, QuorumMissing, Refused, Tampered, Unreachable
from exclave.testing.realm import Asking, TestRealm, make
from exclave.types import Instant

SECOND = 10**9


@pytest.fixture(scope="module")
def realm() -> TestRealm:
    return make()


def now() -> Instant:
    return Instant(time.time_ns())


@pytest.fixture
def asking(realm: TestRealm) -> Asking:
    return realm.ask(not_before=Instant(now() - SECOND))


def answers(realm: TestRealm, asking: Asking, *people: int) -> list[bytes]:
    return [realm.approve(at, asking, at=now()) for at in people]


def start(realm: TestRealm, asking: Asking, folder: Path, **options: object) -> KeyholderClient:
    given = answers(realm, asking, 0, 2, 3)
    return KeyholderClient.open(realm.papers, asking.text, given, asking.seed_file(folder), **options)


def is_running(process_id: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process_id, 0)
        return True
    return False


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_it_opens_what_was_approved_and_counts(realm, asking, tmp_path):
    with start(realm, asking, tmp_path) as opener:
        pairs = [realm.header(at % 2, number=at) for at in range(600)]
        assert opener.content_keys(header for header, _ in pairs) == [key for _, key in pairs]
        assert opener.content_key(pairs[0][0]) == pairs[0][1]
        assert opener.content_keys([]) == []
        assert opener.opened() == {realm.wanted[0].register: 301, realm.wanted[1].register: 300}
        assert opener.request == asking.request
        running = opener.process_id
        assert is_running(running)
    assert not is_running(running)


def test_one_refusal_does_not_end_the_session(realm, asking, tmp_path):
    asked = realm.ask(registers=realm.wanted[:1], not_before=Instant(now() - SECOND))
    with start(realm, asked, tmp_path) as opener:
        with pytest.raises(Refused, match="did not approve"):
            opener.content_key(realm.header(1)[0])
        header, key = realm.header(0)
        with pytest.raises(Tampered):
            opener.content_key(header[:-1] + bytes([header[-1] ^ 1]))
        with pytest.raises(Tampered):
            opener.content_key(bytes(channel.MAX_HEADER_BYTES + 1))
        assert opener.content_key(header) == key


def test_too_few_approvals_open_nothing_and_leave_no_process(realm, asking, tmp_path, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def watched(*args: object, **options: object) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", watched)
    with pytest.raises(QuorumMissing, match="1 more approval") as caught:
        KeyholderClient.open(
            realm.papers, asking.text, answers(realm, asking, 0, 2), asking.seed_file(tmp_path)
        )
    assert caught.value.exit_code == 5
    assert "person 0, person 2" in caught.value.why
    assert [process.poll() for process in started] == [0]


def test_it_judges_for_itself_whatever_its_client_believes(realm, asking, tmp_path):
    """A client that hands it an unsigned charter, a foreign record or no record gets nothing."""
    good, seed = realm.papers, asking.seed_file(tmp_path)
    given = answers(realm, asking, 0, 2, 3)
    text = good.history.notes[0].split(b"\n\n")[0] + b"\n\n"
    unsigned = replace(good, history=History(good.history.charters, (text + "— x AAAAAAA=\n".encode(),)))
    with pytest.raises(QuorumMissing):
        KeyholderClient.open(unsigned, asking.text, given, seed)
    swapped = dict(zip(good.notes, reversed(list(good.notes.values())), strict=True))
    with pytest.raises(Tampered, match="custody record"):
        KeyholderClient.open(replace(good, notes=swapped), asking.text, given, seed)
    with pytest.raises(NotThere):
        KeyholderClient.open(replace(good, notes={}), asking.text, given, seed)
    with pytest.raises(Refused, match="another realm"):
        KeyholderClient.open(make().papers, asking.text, given, seed)


def test_the_deadline_forgets_without_being_asked(realm, tmp_path):
    asked = realm.ask(not_before=Instant(now() - SECOND), not_after=Instant(now() + 2 * SECOND))
    header, key = realm.header()
    with start(realm, asked, tmp_path) as opener:
        assert opener.content_key(header) == key
        wait_until(lambda: not opener.opened())
        assert now() <= asked.request.not_after + SECOND
        with pytest.raises(Refused) as caught:
            opener.content_key(header)
        assert caught.value.id == "session-over"
    with pytest.raises(Refused, match="not valid now"):
        KeyholderClient.open(
            realm.papers, asked.text, [realm.approve(at, asked) for at in ()], asked.seed_file(tmp_path)
        )


def test_an_end_before_the_requests_own(realm, asking, tmp_path):
    with start(realm, asking, tmp_path, until=Instant(now() + SECOND)) as opener:
        assert opener.until < asking.request.not_after
        wait_until(lambda: not opener.opened())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_keyholder_that_dies_is_an_error_and_no_hang(realm, asking, tmp_path, how):
    with start(realm, asking, tmp_path) as opener:
        os.kill(opener.process_id, how)
        began = time.monotonic()
        for _ in range(2):
            with pytest.raises(Unreachable) as caught:
                opener.content_key(realm.header()[0])
            assert caught.value.id == "keyholder-gone"
        assert time.monotonic() - began < 5


def test_a_keyholder_that_hangs_is_an_error(realm, asking, tmp_path, monkeypatch):
    monkeypatch.setattr("exclave.agents.keyholder_client._PATIENCE_SECONDS", 1.0)
    with start(realm, asking, tmp_path) as opener:
        os.kill(opener.process_id, signal.SIGSTOP)
        with pytest.raises(Unreachable):
            opener.content_key(realm.header()[0])
        os.kill(opener.process_id, signal.SIGCONT)
        with pytest.raises(Unreachable):  # its late answer is not taken for the next question's
            opener.content_key(realm.header()[0])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_it_ends_when_its_parent_is_killed(realm, asking, tmp_path):
    """The parent is a fork of this process, so it has the realm without writing secrets down."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        opener = start(realm, asking, tmp_path)
        os.write(tell, f"{opener.process_id}\n".encode())
        time.sleep(60)
        os._exit(0)
    keyholder = int(os.read(told, 32))
    assert is_running(keyholder)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until(lambda: not is_running(keyholder))
    os.close(told)
    os.close(tell)


def test_no_secret_is_in_its_arguments_or_environment(realm, asking, tmp_path):
    with start(realm, asking, tmp_path) as opener:
        place = Path("/proc") / str(opener.process_id)
        arguments = (place / "cmdline").read_bytes().split(b"\0")
        assert arguments[-3:] == [b"-m", b"exclave.agents.keyholder", b""]
        if os.geteuid() == 0:
            names = {
                line.partition(b"=")[0] for line in (place / "environ").read_bytes().split(b"\0") if line
            }
            assert names == {b"LC_ALL", b"PATH", b"PYTHONPATH"}
            assert set(os.listdir(place / "fd")) <= {"0", "1", "2"}
        assert asking.seed.hex() not in repr(opener)


def test_nothing_is_loaded_from_where_somebody_stands(realm, asking, tmp_path, monkeypatch):
    """`python -m exclave` puts the folder it was called in before all others; there anybody may have left code."""
    stands = tmp_path / "stands"
    stands.mkdir()
    witness = tmp_path / "witness"
    (stands / "blake3.py").write_text(f"open({str(witness)!r}, 'w').close()\nraise ImportError\n")
    monkeypatch.chdir(stands)
    monkeypatch.setattr(sys, "path", [str(stands), "", *sys.path])
    with start(realm, asking, tmp_path):
        assert not witness.exists()


def test_it_tells_which_protections_hold(realm, asking, tmp_path):
    with start(realm, asking, tmp_path) as opener:
        held = opener.hardening
        status = (Path("/proc") / str(opener.process_id) / "status").read_text()
        assert set(held) == {"no-core-dump", "no-foreign-look", "no-new-rights", "no-network", "no-swap"}
        assert held["no-core-dump"]
        assert held["no-foreign-look"]
        assert held["no-new-rights"]
        assert "NoNewPrivs:\t1" in status
        limits = (Path("/proc") / str(opener.process_id) / "limits").read_text()
        assert "Max core file size        0                    0" in limits
        locked = int(status.split("VmLck:")[1].split()[0])
        assert held["no-swap"] == (locked > 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_lacking_rights_are_told_and_not_fatal():
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 16, 1 << 16))
            os.setuid(65534)
        os.write(tell, json.dumps(harden()).encode())
        os._exit(0)
    held = json.loads(os.read(told, 4096))
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)
    assert held["no-core-dump"]
    assert held["no-new-rights"]
    assert not held["no-network"]


def test_a_keyholder_that_cannot_start_is_an_error(realm, asking, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(Unreachable) as caught:
        KeyholderClient.open(
            realm.papers, asking.text, answers(realm, asking, 0, 1, 2), asking.seed_file(tmp_path)
        )
    assert caught.value.id == "keyholder-gone"


@pytest.mark.parametrize(("mode", "content"), [(0o644, bytes(32)), (0o600, bytes(31)), (0o600, bytes(33))])
def test_an_exposed_or_foreign_secret_is_refused(realm, asking, tmp_path, mode, content):
    path = tmp_path / "seed"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises((Misconfigured, Tampered)):
        KeyholderClient.open(realm.papers, asking.text, answers(realm, asking, 0, 1, 2), path)


def test_a_missing_secret_is_told(realm, asking, tmp_path):
    with pytest.raises(Misconfigured) as caught:
        KeyholderClient.open(realm.papers, asking.text, answers(realm, asking, 0, 1, 2), tmp_path / "none")
    assert caught.value.id == "secret-unreadable"


# ------------------------------------------------------------------------------------------- a rude other side
@pytest.fixture
def rude():
    """A keyholder, and the bare socket to it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    process = subprocess.Popen(
        [sys.executable, "-m", "exclave.agents.keyholder"],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    theirs.close()
    with process, ours:
        yield ours, process
        ours.close()
        process.wait(10)


def test_before_its_papers_it_gives_nothing(rude, realm):
    ours, process = rude
    for message in (
        b"K" + channel.join_headers([realm.header()[0]]),
        b"X",
        b"O{}",
        b"Onothing",
        b"K\xff\xff\xff\xff",
    ):
        channel.send(ours, message)
        answer = channel.receive(ours, channel.MAX_ANSWER_BYTES)
        assert answer[:1] == b"-", message
        assert not isinstance(channel.error_in(answer), QuorumMissing)
    assert process.poll() is None


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x05abc", b"\0"])
def test_a_message_too_long_or_cut_ends_it(rude, raw):
    ours, process = rude
    ours.sendall(raw)
    ours.shutdown(socket.SHUT_WR)
    assert process.wait(10) == 0
    assert process.stderr.read() == b""


def test_papers_are_taken_once(rude, realm, asking, tmp_path):
    from exclave.agents import keyholder_client
    from exclave.codec import encode

    ours, _ = rude
    given = answers(realm, asking, 0, 1, 2)
    seed = asking.seed_file(tmp_path)
    papers = keyholder_client._opening(
        realm.papers, asking.request, asking.text, given, seed, asking.request.not_after
    )
    channel.send(ours, b"O" + encode(papers))
    assert channel.receive(ours, channel.MAX_ANSWER_BYTES)[:1] == b"+"
    channel.send(ours, b"O" + encode(papers))
    answer = channel.receive(ours, channel.MAX_ANSWER_BYTES)
    assert channel.error_in(answer).id == "keyholder-refuses"
