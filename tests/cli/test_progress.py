"""Progress: what it says, in each of its forms."""

from __future__ import annotations

import io
import json
import os
import pty
import time

import pytest

from exclave.cli import progress
from exclave.cli.output import Output
from exclave.cli.progress import Ndjson, Task, Ticking, size, span
from exclave.cli.terminal import Terminal


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (31_240_000, "31.2 MB"),
        (2e9, "2.0 GB"),
        (3.2e15, "3200.0 TB"),
    ],
)
def test_sizes_are_decimal(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (45, "45 s"),
        (720, "12 min"),
        (12_000, "3 h 20 min"),
        (200_000, "2 days"),
        (5_399, "90 min"),
    ],
)
def test_spans_are_short(seconds, text):
    assert span(seconds) == text


def test_a_task_says_phase_bytes_rate_and_time_left(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    task = Task("land")
    task.phase("read and seal", 40_000_000)
    now[0] += 2
    task.told(7, 10_000_000)
    assert task.sentence() == "land: read and seal, 10.0 MB of 40.0 MB, 5.0 MB/s, 6 s left"
    task.phase("make it durable abroad")
    assert task.sentence() == "land: make it durable abroad"
    task.finish()
    assert task.sentence() == "land: done"


def test_without_a_terminal_there_is_a_line_of_life(monkeypatch):
    talk = io.StringIO()
    board = Ticking(talk, "safe to interrupt", every=0.01)
    with board:
        task = board.task("land")
        task.phase("read and seal", 10)
        time.sleep(0.1)
    lines = talk.getvalue().splitlines()
    assert len(lines) >= 2
    assert lines[0].startswith("land: read and seal")
    assert lines[0].endswith("(safe to interrupt)")
    assert progress.LIFE_SECONDS == 30


def test_ndjson_has_one_object_a_line_and_a_last_word():
    talk = io.StringIO()
    with Ndjson(talk, "safe to interrupt", every=60) as board:
        task = board.task("land")
        task.phase("read and seal", 10)
        task.told(1, 5)
        task.finish()
    (row,) = [json.loads(line) for line in talk.getvalue().splitlines()]
    assert row["schema"] == "exclave/progress/1"
    assert (row["task"], row["bytes"], row["total_bytes"], row["finished"]) == ("land", 5, 10, True)
    assert row["safe"] == "safe to interrupt"


def test_on_a_terminal_there_are_bars():
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as talk:
        with Terminal(talk, "safe to interrupt", every=0.01) as board:
            task = board.task("land")
            task.phase("read and seal", 100)
            task.told(1, 50)
            time.sleep(0.2)
            task.finish()
        talk.flush()
        seen = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "safe to interrupt" in seen
    assert "read and seal" in seen


@pytest.mark.parametrize(
    ("mode", "as_json", "kind"),
    [("ndjson", True, Ndjson), ("auto", False, Ticking), ("none", False, Ticking)],
)
def test_the_form_follows_the_option_and_the_stream(mode, as_json, kind):
    out = Output("protect", as_json=as_json, mode=mode, data=io.StringIO(), talk=io.StringIO())
    assert type(out.progress(safe="safe")) is kind
