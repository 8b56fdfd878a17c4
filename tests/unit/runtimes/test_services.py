"""What is remembered of a service, and how its process is told apart from another one."""

import dataclasses
import os
import signal
import sys
from pathlib import Path

import pytest

from exclave.errors import Busy, Misconfigured, NotThere
from exclave.runtimes import base, process
from exclave.runtimes.base import Service


@pytest.fixture
def sleeper(tmp_path):
    log = tmp_path / "sleeper.log"
    pid = process.spawn(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"], log=log
    )
    service = Service("sleeper", "static", "http://127.0.0.1:1/", pid, process.birth(pid), tmp_path, log)
    yield service
    process.end(service, (signal.SIGKILL, 10))


def test_a_note_is_read_back(tmp_path):
    service = Service(
        "gazette", "static", "http://127.0.0.1:1/", 7, "9", Path("/srv/x"), tmp_path / "l", Path("/tmp/y")
    )
    base.remember(tmp_path, service)
    base.remember(tmp_path, dataclasses.replace(service, name="land", private=None))
    assert base.recall(tmp_path, "gazette") == service
    assert [found.name for found in base.services(tmp_path)] == ["gazette", "land"]
    base.forget(tmp_path, "gazette")
    base.forget(tmp_path, "gazette")
    with pytest.raises(NotThere):
        base.recall(tmp_path, "gazette")


@pytest.mark.parametrize("name", ["", "../x", "A", "a/b", "x" * 65])
def test_names_that_are_no_file_names_are_refused(tmp_path, name):
    with pytest.raises(Misconfigured):
        base.log_of(tmp_path, name)


def test_a_process_is_found_and_ended(sleeper):
    assert process.alive(sleeper)
    assert os.getsid(sleeper.pid) == sleeper.pid, "it must outlive our session"
    assert not process.alive(dataclasses.replace(sleeper, began="1")), "another process with the same number"
    process.end(sleeper, (signal.SIGTERM, 10))
    assert not process.alive(sleeper)
    process.end(sleeper, (signal.SIGTERM, 10))


def test_the_same_name_is_not_started_twice(tmp_path, sleeper):
    base.remember(tmp_path, sleeper)
    with pytest.raises(Busy):
        process.refuse_twice(tmp_path, "sleeper")
    process.refuse_twice(tmp_path, "another")


def test_one_that_ends_while_starting_says_why(tmp_path):
    log = tmp_path / "x.log"
    pid = process.spawn([sys.executable, "-c", "raise SystemExit('no such luck')"], log=log)
    service = Service("x", "static", "", pid, process.birth(pid), tmp_path, log)
    with pytest.raises(Misconfigured, match="no such luck"):
        process.wait_until(lambda: False, service, seconds=20)
    assert log.stat().st_mode & 0o077 == 0


def test_one_that_is_never_ready_is_ended(tmp_path, sleeper):
    with pytest.raises(Misconfigured, match="not ready"):
        process.wait_until(lambda: False, sleeper, seconds=0.1)
    assert not process.alive(sleeper)


def test_a_program_that_is_not_there(tmp_path):
    with pytest.raises(Misconfigured) as caught:
        process.spawn([tmp_path / "none"], log=tmp_path / "l")
    assert caught.value.id == "service-start-failed"
