"""A realm with one embassy in a locked bucket and one in a folder, through the commands that an operator types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exclave.cli.main import run
from exclave.testing.seaweed import Seaweed

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as found:
        found.bucket("realm", locked_days=1)
        yield found


@pytest.fixture
def say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    monkeypatch.chdir(tmp_path)

    def call(*words: str, expect: int = 0) -> dict[str, Any]:
        code = run([*words, "--json"])
        out, err = capsys.readouterr()
        assert code == expect, out + err
        document: dict[str, Any] = json.loads(out)
        return document

    return call


def test_a_bucket_is_an_embassy_like_a_folder(site, say, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "act.txt").write_text("Section 1\n")
    say("init", "--realm", "Test", "--copies", "2")
    say("register", "add", "papers", "papers")
    say("embassy", "add", "folder", "abroad")
    words = ("--endpoint", site.endpoint, "--credentials-file", str(site.credentials_file()))
    assert say("embassy", "add", "bucket", "s3://realm/kaldova", expect=2)["id"] == "no-credentials"
    added = say("embassy", "add", "bucket", "s3://realm/kaldova", *words)
    assert added["probe"]["immutable"] is True, "its lock was tried and held"
    say("ceremony", "--custodian", "x", "--custodian", "y", "--custodian", "z")
    (row,) = say("protect")["snapshots"]
    assert row["holders"] == ["bucket", "folder"]
    assert say("verify")["verdict"] == "good"
    assert say("status")["verdict"] == "protected"
    assert {(copy["embassy"], copy["immutable"]) for copy in say("where", "papers")["copies"]} == {
        ("folder", False),
        ("bucket", True),
    }
    say("request", "papers", "--embassy", "bucket", "--reason", "a drill")
    for name in "xy":
        say("approve", "request.exclave", "--as", f"custodians/{name}", "--yes")
    say("restore", "papers", "--to", "back")
    assert (tmp_path / "back" / "act.txt").read_text() == "Section 1\n"
