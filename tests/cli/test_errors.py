"""What a user meets when something goes wrong: three lines, an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from exclave.cli import main
from exclave.cli.options import Call, standard
from exclave.errors import Busy, Misconfigured, NotThere, QuorumMissing, Refused, Tampered, Unreachable


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Call], int | None]], None]:
    """Put a verb `version` in place of the real one."""

    def put(act: Callable[[Call], int | None]) -> None:
        command = click.command("version")(standard(act))
        monkeypatch.setattr(main.Verbs, "get_command", lambda *_: command)

    return put


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (NotThere, 1),
        (Misconfigured, 2),
        (Refused, 4),
        (QuorumMissing, 5),
        (Busy, 6),
        (Tampered, 7),
        (Unreachable, 8),
    ],
)
def test_each_kind_of_error_has_three_lines_and_its_exit_code(kind, code, verb, capsys):
    def act(_call: Call) -> None:
        raise kind("some-id", "It failed", why="because\nof this", hint="exclave doctor")

    verb(act)
    assert main.run(["version"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error[some-id]: It failed\n  why:  because of this\n  next: exclave doctor\n"


def test_with_json_the_error_is_a_document_too(verb, capsys):
    def act(_call: Call) -> None:
        raise Refused("some-id", "It failed")

    verb(act)
    assert main.run(["version", "--json"]) == 4
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["schema"] == "exclave/error/1"
    assert document["id"] == "some-id"
    assert document["exit"] == 4
    assert len(err.splitlines()) == 3


def test_an_unexpected_error_leaves_a_report_without_values(verb, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main.run(["init"]) == 0

    def act(_call: Call) -> None:
        secret = "the-seed-itself"
        raise KeyError(len(secret))

    verb(act)
    capsys.readouterr()
    assert main.run(["version"]) == 1
    _out, err = capsys.readouterr()
    assert len(err.splitlines()) == 3
    assert "Traceback" not in err
    (report,) = (tmp_path / "state" / "reports").iterdir()
    assert str(report) in err
    assert report.stat().st_mode & 0o777 == 0o600
    text = report.read_text()
    assert "KeyError" in text
    assert "in act" in text


def test_a_verb_may_say_done_with_gaps(verb):
    verb(lambda _call: 3)
    assert main.run(["version"]) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_that_nothing_is_lost(number, tmp_path):
    program = (
        "import sys, time, click, threading\n"
        "from exclave.cli import main\n"
        "from exclave.cli.options import standard\n"
        "def act(call):\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    call.out.say('working')\n"
        "    time.sleep(60)\n"
        "main.Verbs.get_command = lambda *_: click.command('version')(standard(act))\n"
        "sys.argv = ['exclave', 'version']\n"
        "main.main()\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment
    ) as child:
        assert child.stderr is not None
        assert child.stderr.readline() == "working\n"
        began = time.monotonic()
        child.send_signal(number)
        rest = child.stderr.read()
        assert child.wait(10) == 130
    assert rest.strip() == "stopped; nothing lost; run again to go on"
    assert time.monotonic() - began < 10


def test_the_reader_of_our_output_may_leave(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(main.__file__).parents[2])}
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m exclave explain | true"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.stderr == ""
