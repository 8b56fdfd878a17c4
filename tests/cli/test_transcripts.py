"""Transcripts: each command, what it printed, its exit code. `[..]` stands for anything within a line.

A line `$ exclave ...` runs the command in an empty folder of its own; lines that follow are its standard output,
lines after `! ` its standard error, and `? N` its exit code (0 when absent). `$ write FILE TEXT` makes a file.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exclave.cli.main import run

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@dataclass
class Step:
    command: str
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    code: int = 0


def steps(text: str) -> list[Step]:
    found: list[Step] = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line.startswith("$ "):
            found.append(Step(line[2:]))
        elif line.startswith("! "):
            found[-1].err.append(line[2:])
        elif line.startswith("? "):
            found[-1].code = int(line[2:])
        else:
            found[-1].out.append(line)
    return found


def matches(expected: list[str], seen: str) -> bool:
    wanted = "\n".join(
        ".*".join(re.escape(part) for part in line.split("[..]")) for line in map(narrow, expected)
    )
    return re.fullmatch(wanted, "\n".join(map(narrow, seen.splitlines()))) is not None


def narrow(line: str) -> str:
    """Columns are as wide as temporary paths make them: any gap is two spaces."""
    return re.sub(r"(?<=\S) {2,}", "  ", line)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXCLAVE_CONFIG", raising=False)
    for step in steps(path.read_text()):
        words = shlex.split(step.command)
        if words[0] == "write":
            (tmp_path / words[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / words[1]).write_text(words[2] + "\n")
            continue
        code = run(words[1:])
        out, err = capsys.readouterr()
        out, err = (text.replace(str(tmp_path), "HERE") for text in (out, err))
        seen = f"$ {step.command}\n{out}--- standard error\n{err}--- exit code {code}"
        assert matches(step.out, out.rstrip("\n")), seen
        assert matches(step.err, err), seen
        assert code == step.code, seen


def test_transcripts_are_found() -> None:
    assert TRANSCRIPTS


def test_a_wrong_transcript_does_not_match() -> None:
    assert not matches(["done"], "undone")
    assert matches(["[..]done, [..] bytes"], "undone, 12 bytes")
