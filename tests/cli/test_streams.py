"""What is printed holds nothing that moves a cursor; and streams that are full, closed or left do no harm."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import click
import pytest

from exclave.cli import main
from exclave.cli.options import Call, standard
from exclave.cli.output import Output
from exclave.cli.progress import Task
from exclave.cli.protect import _tell
from exclave.errors import Refused
from exclave.flows.home import Protected
from exclave.types import Gap, Instant

EVIL = "a\x1b[2J\x1b]0;title\x07\x9b31m\r\nforged: all is well\x7f\u202e\udcff"
SOURCE = str(Path(main.__file__).parents[2])


def exclave(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell in which `exclave` is the program."""
    environment = {name: value for name, value in os.environ.items() if name != "EXCLAVE_CONFIG"}
    environment |= {"PYTHONPATH": SOURCE}
    program = f'exclave() {{ "{sys.executable}" -m exclave "$@"; }}; {command}'
    return subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=60,
    )


@pytest.fixture
def output() -> Output:
    return Output("test", data=io.StringIO(), talk=io.StringIO())


def said(output: Output) -> str:
    assert isinstance(output.data, io.StringIO)
    assert isinstance(output.talk, io.StringIO)
    return output.data.getvalue() + output.talk.getvalue()


@pytest.mark.parametrize("way", ["line", "text", "say", "table", "task", "colour"])
def test_nothing_from_outside_moves_the_cursor_or_begins_a_line(way, output):
    match way:
        case "line":
            output.line(EVIL)
        case "colour":
            output.line(EVIL, colour="red")
        case "text":
            output.text(EVIL.replace("\n", ""))
        case "say":
            output.say(EVIL)
        case "table":
            output.table(("one", "two"), [(EVIL, "x"), ("short", "y")])
        case _:
            task = Task(EVIL, what=EVIL)
            output.say(task.sentence())
            task.phase(EVIL, 7)
            assert task.sentence().isprintable()
    lines = said(output).split("\n")
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("forged") for line in lines)
    assert "\\x1b[2J" in said(output)


def test_columns_are_as_wide_as_what_is_shown(output):
    output.table(("one", "two"), [("\x1b", "x"), ("abcdef", "y")])
    assert said(output).splitlines() == ["one     two", "\\x1b    x", "abcdef  y"]


def test_json_keeps_the_value_and_shows_no_control_character(output):
    output.as_json = True
    output.document(path=EVIL + "\U000e0001", name="naïve é 漢")
    assert all(line.isprintable() for line in said(output).split("\n"))
    assert json.loads(said(output)) == {
        "schema": "exclave/test/1",
        "path": EVIL + "\U000e0001",
        "name": "naïve é 漢",
    }
    assert "naïve é 漢" in said(output)


def test_errors_show_names_from_outside_as_escapes(monkeypatch, capsys):
    def act(_call: Call) -> None:
        raise Refused("some-id", f"{EVIL} failed", why=EVIL, hint=EVIL)

    monkeypatch.setattr(main.Verbs, "get_command", lambda *_: click.command("version")(standard(act)))
    assert main.run(["version"]) == 4
    out, err = capsys.readouterr()
    assert all(line.isprintable() for line in (out + err).split("\n"))
    assert len(err.splitlines()) == 3


def test_a_mistake_on_the_command_line_is_not_echoed_raw(capsys):
    assert main.run(["version", "--no\x1b[2Jsuch"]) == 2
    _out, err = capsys.readouterr()
    assert "\x1b" not in err
    assert "\\x1b[2J" in err


def test_a_gap_of_a_hostile_name_is_printed_escaped(output):
    one = Protected(
        register="papers",
        sequence=1,
        consistent_at=Instant(0),
        position="",
        holders=frozenset("a"),
        behind={"b": EVIL},
        files=1,
        bytes=1,
        new_bytes=1,
        stored_bytes=1,
        full=True,
        gaps=(Gap(b"x\x1b[2J\nforged: snapshot 9\xff", EVIL),),
    )
    _tell(Call(out=output), one)
    assert all(line.isprintable() for line in said(output).split("\n"))
    assert len(said(output).splitlines()) == 4


@pytest.mark.parametrize("verb", ["status", "--help", "status --json"])
@pytest.mark.parametrize("where", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full", "| head -1"])
def test_a_stream_that_is_gone_changes_nothing(verb, where, realm):
    plain = exclave(f"exclave {verb}", realm)
    done = exclave(f"set -o pipefail; exclave {verb} {where}", realm)
    assert done.returncode == plain.returncode
    assert done.stderr in ("", plain.stderr)


@pytest.mark.parametrize("verb", ["version", "--help", "explain", "version --json"])
def test_a_full_output_is_told_in_three_lines(verb, tmp_path):
    done = exclave(f"exclave {verb} >/dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error[output-lost]: ")
    assert len(done.stderr.splitlines()) == 3


def test_protect_that_nobody_listens_to_has_protected(realm, say):
    assert exclave("exclave protect --progress none >&- 2>&-", realm).returncode == 0
    assert exclave("set -o pipefail; exclave protect --json | true", realm).returncode == 0
    assert [row["snapshot"] for row in say(realm, "status", expect=3)["registers"]] == [2, 2]


def test_a_closed_stream_never_becomes_a_file_of_ours(realm):
    done = exclave("exclave protect >&- 2>&-; exclave verify", realm)
    assert done.returncode == 0, done.stderr


def stopped(program: str, folder: Path, number: int) -> tuple[int, str]:
    """Start a program, send it a signal when it says that it is ready; its exit code and what it said of that."""
    environment = os.environ | {"PYTHONPATH": SOURCE}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        while "ready" not in (line := child.stdout.readline()):
            assert line, child.stderr.read()
        child.send_signal(number)
        code = child.wait(20)
        return code, child.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_first_imports_leaves_no_traceback(number, tmp_path):
    program = (
        "import runpy, sys, time\n"
        "class Slow:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            print('ready', flush=True)\n"
        "            time.sleep(20)\n"
        "sys.meta_path.insert(0, Slow())\n"
        "sys.argv = ['exclave', 'version']\n"
        "runpy.run_module('exclave', run_name='__main__')\n"
    )
    assert stopped(program, tmp_path, number) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_the_very_end_leaves_no_traceback(number, tmp_path):
    program = (
        "import sys, threading, time\n"
        "from exclave.cli import main\n"
        "main.run = lambda words: threading.Thread(target=time.sleep, args=(20,)).start() or 0\n"
        "flush = main.writing.let_go\n"
        "main.writing.let_go = lambda: (flush(), print('ready', flush=True))\n"
        "main.main()\n"
    )
    assert stopped(program, tmp_path, number) == (130, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_readable_copy_of_a_database_does_not_outlive_a_stopped_run(number, realm):
    program = (
        "import sys, time\n"
        "from exclave.cli import main\n"
        "from exclave.registers.sqlite import copying\n"
        "real = copying.copy\n"
        "def slow(*given, **options):\n"
        "    real(*given, **options)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(20)\n"
        "copying.copy = slow\n"
        "sys.argv = ['exclave', 'protect', 'ledger']\n"
        "main.main()\n"
    )
    began = time.monotonic()
    code, err = stopped(program, realm, number)
    assert (code, err.strip()) == (130, "stopped; nothing lost; run again to go on")
    assert time.monotonic() - began < 15
    assert not list(realm.rglob("exclave-sqlite-*"))
    with closing(sqlite3.connect(realm / "ledger.db")) as ledger:
        assert ledger.execute("select count(*) from entry").fetchone() == (500,)


def test_leaving_waits_for_no_thread_that_makes_files(tmp_path):
    program = (
        "import sys, threading, os\n"
        "from pathlib import Path\n"
        "from exclave import leavings\n"
        "folder = leavings.make(Path(sys.argv[1]), 'copy-')\n"
        "def work():\n"
        "    for n in range(10**9):\n"
        "        try: (folder / str(n)).write_text('x')\n"
        "        except OSError: leavings.make(Path(sys.argv[1]), 'copy-')\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "leavings.remove_all()\n"
        "os._exit(0)\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        check=True,
        env=os.environ | {"PYTHONPATH": SOURCE},
        timeout=20,
    )
    assert list(tmp_path.iterdir()) == []
