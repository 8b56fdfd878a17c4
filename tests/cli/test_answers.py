"""The answers beside a request: whoever can put a file there can neither hold up the others nor make us wait."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from exclave.cli.main import run
from exclave.flows import request as requests


def ask(say: Any, realm: Path, *people: str) -> None:
    say(realm, "protect")
    say(realm, "request", "papers", "--embassy", "a", "--reason", "a mistake")
    for name in people:
        say(realm, "approve", "request.exclave", "--as", str(realm.parent / "people" / name), "--yes")


def spoil(realm: Path, how: str) -> Path:
    bad = realm / "request.z.approval"
    good = realm / "request.x.approval"
    match how:
        case "pipe":
            os.mkfifo(bad)
        case "device":
            bad.symlink_to("/dev/zero")
        case "folder":
            bad.mkdir()
        case "gone":
            bad.symlink_to("nowhere")
        case "huge":
            with bad.open("wb") as stream:
                stream.truncate(1 << 40)
        case "empty":
            bad.touch()
        case "twice":
            shutil.copy(good, bad)
        case _:
            data = bytearray(good.read_bytes())
            data[-10] = ord("A") if data[-10] != ord("A") else ord("B")
            bad.write_bytes(data)
    return bad


@pytest.mark.parametrize("how", ["pipe", "device", "folder", "gone", "huge", "empty", "twice", "altered"])
def test_an_answer_that_cannot_count_is_left_aside(how, realm, say, tmp_path, capsys, monkeypatch):
    ask(say, realm, "x", "y")
    spoil(realm, how)
    monkeypatch.chdir(realm)
    assert run(["restore", "papers", "--to", str(tmp_path / "out")]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left aside" in line]
    assert "request.z.approval" in line
    assert ("x" in line) or how not in {"twice", "altered"}
    assert (tmp_path / "out" / "one.txt").read_text() == "the first\n"


def test_an_answer_to_another_request_is_left_aside_and_its_person_named(realm, say, tmp_path, capsys):
    ask(say, realm, "z")
    (realm / "request.z.approval").rename(realm / "kept")
    (realm / "request.exclave").unlink()
    ask(say, realm, "x", "y")
    (realm / "kept").rename(realm / "request.z.approval")
    assert run(["restore", "papers", "--to", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    assert "left aside: request.z.approval (says it is of z): " in err


def test_an_answer_that_was_named_must_count(realm, say, tmp_path):
    ask(say, realm, "x", "y")
    bad = spoil(realm, "pipe")
    words = ("restore", "papers", "--to", str(tmp_path / "out"), "--approval", "request.x.approval")
    assert say(realm, *words, "--approval", str(bad), expect=2)["id"] == "no-such-file"
    assert say(realm, *words, "--approval", "request.y.approval")["kind"] == "files"


def test_a_request_that_is_a_pipe_is_refused_at_once(realm, say, tmp_path):
    os.mkfifo(realm / "request.exclave")
    assert say(realm, "restore", "papers", "--to", str(tmp_path / "o"), expect=2)["id"] == "no-such-file"


@pytest.mark.parametrize("how", ["garbage", "pipe", "folder"])
def test_a_damaged_request_of_before_does_not_block_a_new_one(how, realm, say):
    ask(say, realm)
    (old,) = (realm / "state" / "sessions").glob("*.request")
    old.unlink()
    match how:
        case "garbage":
            old.write_bytes(b"\xff" * 100)
        case "pipe":
            os.mkfifo(old)
        case _:
            old.mkdir()
    (realm / "request.exclave").unlink()
    say(realm, "request", "papers", "--embassy", "a", "--reason", "again")
    assert len(list((realm / "state" / "sessions").glob("*.seed"))) == 2
    assert requests.read(realm / "request.exclave")
