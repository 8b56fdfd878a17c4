"""The verbs over a small realm: what they say, what they change, and the shape of their documents."""

from __future__ import annotations

import gc
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from exclave.cli import protect
from exclave.cli.main import run


def approve(say: Callable[..., dict[str, Any]], home: Path, *people: str) -> None:
    for name in people:
        say(home, "approve", "request.exclave", "--as", str(home.parent / "people" / name), "--yes")


def test_protect_says_what_it_did(realm, say):
    document = say(realm, "protect")
    assert document["schema"] == "exclave/protect/1"
    assert document["failed"] == []
    assert {row["register"] for row in document["snapshots"]} == {"papers", "ledger"}
    papers = next(row for row in document["snapshots"] if row["register"] == "papers")
    assert set(papers) == {
        "register", "sequence", "consistent_at", "position", "holders", "behind", "files", "bytes", "new_bytes",
        "stored_bytes", "full", "gaps",
    }  # fmt: skip
    assert papers["sequence"] == 1
    assert papers["holders"] == ["a", "b", "c"]
    assert papers["full"] is True
    again = say(realm, "protect", "papers")["snapshots"]
    assert [(row["register"], row["sequence"], row["new_bytes"]) for row in again] == [("papers", 2, 0)]


def test_a_rehearsal_writes_nothing(realm, say):
    before = sorted(realm.parent.rglob("*"))
    document = say(realm, "protect", "--dry-run")
    assert document["dry_run"] is True
    assert sorted(realm.parent.rglob("*")) == before


def test_one_register_that_fails_does_not_stop_the_other(realm, say):
    shutil.rmtree(realm / "papers")
    document = say(realm, "protect", expect=8)
    assert [row["register"] for row in document["snapshots"]] == ["ledger"]
    assert [row["register"] for row in document["failed"]] == ["papers"]


def test_status_is_green_only_with_fresh_proof(realm, say):
    assert say(realm, "status", expect=1)["verdict"] == "unprotected"
    say(realm, "protect")
    unproven = say(realm, "status", expect=3)
    assert unproven["verdict"] == "unproven"
    assert "never proven" in unproven["sentence"]
    assert say(realm, "verify")["verdict"] == "good"
    green = say(realm, "status")
    assert green["verdict"] == "protected"
    assert green["sentence"].startswith("Every register can be restored to ")
    assert "from 3 of 3 embassies; last proven " in green["sentence"]
    row = green["registers"][0]
    assert set(row) == {
        "register",
        "state",
        "snapshot",
        "restores_to",
        "holders",
        "behind",
        "gaps",
        "why",
        "proven",
    }


def test_status_with_old_proof_is_not_green(realm, say):
    say(realm, "protect")
    say(realm, "verify")
    for note in (realm / "state" / "proofs").iterdir():
        rows = json.loads(note.read_text())
        for row in rows.values():
            row["at"] = "2020-01-01T00:00:00.000000000Z"
        note.write_text(json.dumps(rows))
    assert say(realm, "status", expect=3)["verdict"] == "unproven"


def test_status_tells_a_thin_register_a_rollback_and_the_unknown(realm, say, tmp_path):
    say(realm, "protect")
    say(realm, "verify")
    abroad = tmp_path / "abroad"
    for name in "ab":
        shutil.rmtree(abroad / name / "r")
    assert say(realm, "status", expect=3)["verdict"] == "thin"
    shutil.rmtree(abroad / "c" / "r")
    assert say(realm, "status", expect=7)["verdict"] == "rolled back"
    for name in "abc":
        shutil.rmtree(abroad / name)
    unknown = say(realm, "status", expect=8)
    assert unknown["verdict"] == "unknown"
    assert "not a good state" in unknown["sentence"]


def test_damage_is_named_and_makes_status_red(realm, say, tmp_path):
    say(realm, "protect")
    pack = next((tmp_path / "abroad" / "b" / "r").rglob("pack/*/*"))
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    found = say(realm, "verify", expect=7)
    assert found["verdict"] == "bad"
    assert [(row["embassy"], Path(row["path"]).name) for row in found["problems"]] == [("b", pack.name)]
    assert say(realm, "status", expect=7)["verdict"] == "damaged"


def test_a_sample_never_says_that_all_is_good(realm, say):
    say(realm, "protect")
    assert say(realm, "verify", "--sample", "0.1")["verdict"] == "unknown"


def test_where_and_snapshots(realm, say):
    say(realm, "protect")
    say(realm, "protect")
    document = say(realm, "where", "ledger")
    assert document["newest"] == 2
    assert {(row["embassy"], row["snapshot"], row["immutable"]) for row in document["copies"]} == {
        ("a", 2, False), ("b", 2, False), ("c", 2, False),
    }  # fmt: skip
    rows = say(realm, "snapshots", "ledger")["snapshots"]
    assert [(row["snapshot"], row["full"]) for row in rows] == [(1, True), (2, False)]


def test_restore_needs_the_quorum_and_gives_back_what_was(realm, say, tmp_path):
    say(realm, "protect")
    with closing(sqlite3.connect(realm / "ledger.db")) as ledger, ledger:
        ledger.execute("delete from entry")
    say(realm, "request", "papers", "ledger", "--embassy", "a", "--reason", "a mistake")
    approve(say, realm, "x")
    refused = say(realm, "restore", "ledger", "--to", str(tmp_path / "out"), expect=5)
    assert refused["id"] == "quorum-missing"
    approve(say, realm, "y")
    assert say(realm, "restore", "ledger", "--to", str(tmp_path / "out"), "--dry-run")["answers"]
    assert not (tmp_path / "out").exists()
    document = say(realm, "restore", "ledger", "--to", str(tmp_path / "out"))
    assert document["kind"] == "sqlite"
    with closing(sqlite3.connect(tmp_path / "out" / "ledger.db")) as ledger:
        assert ledger.execute("select count(*) from entry").fetchone() == (500,)
    say(realm, "restore", "papers", "deep/two.bin", "--to", str(tmp_path / "part"))
    (found,) = [path for path in (tmp_path / "part").rglob("*") if path.is_file()]
    assert found.read_bytes() == (realm / "papers" / "deep" / "two.bin").read_bytes()
    missing = say(realm, "restore", "papers", "three", "--to", str(tmp_path / "none"), expect=1)
    assert missing["id"] == "path-not-in-snapshot"


def test_restore_refuses_what_was_not_asked_for(realm, say, tmp_path):
    say(realm, "protect")
    say(realm, "request", "papers", "--embassy", "a", "--reason", "a mistake")
    approve(say, realm, "x", "z")
    assert say(realm, "restore", "ledger", "--to", str(tmp_path / "out"), expect=4)["id"] == "not-in-request"


def test_a_request_is_only_good_where_it_was_made(realm, say, tmp_path):
    say(realm, "protect")
    say(realm, "request", "papers", "--embassy", "a", "--reason", "a mistake")
    shutil.rmtree(realm / "state" / "sessions")
    assert say(realm, "restore", "papers", "--to", str(tmp_path / "o"), expect=2)["id"] == "request-not-ours"


def test_doctor_names_causes_and_next_commands(realm, say):
    (realm / "keys" / "writer.seed").chmod(0o644)
    shutil.rmtree(realm / "papers")
    findings = say(realm, "doctor", expect=1)["findings"]
    assert all(set(row) == {"subject", "id", "level", "text", "next"} for row in findings)
    failed = {row["subject"]: row for row in findings if row["level"] == "fail"}
    assert failed["secrets"]["id"] == "secret-exposed"
    assert failed["secrets"]["next"].startswith("chmod 600 ")
    assert "register papers" in failed
    assert not [row for row in failed.values() if not row["next"]]


def test_a_secret_that_others_may_read_is_refused(realm, say):
    (realm / "keys" / "writer.seed").chmod(0o640)
    document = say(realm, "protect", expect=2)
    assert {row["id"] for row in document["failed"]} == {"secret-exposed"}


def test_an_embassy_that_is_gone_is_told_and_does_not_hold_up_the_others(realm, say, tmp_path):
    shutil.rmtree(tmp_path / "abroad" / "c")
    document = say(realm, "protect", "papers")
    (row,) = document["snapshots"]
    assert row["holders"] == ["a", "b"]
    assert list(row["behind"]) == ["c"]


def test_watch_goes_round_until_it_is_stopped(realm, monkeypatch):
    monkeypatch.chdir(realm)
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(protect.time, "sleep", sleep)
    assert run(["protect", "papers", "--watch", "1h"]) == 130
    assert all(3500 < pause <= 3600 for pause in pauses)


def test_every_list_has_its_shape(realm, say):
    registers: list[dict[str, Any]] = say(realm, "register", "list")["registers"]
    assert {row["name"] for row in registers} == {"papers", "ledger"}
    embassies = say(realm, "embassy", "list")["embassies"]
    assert [row["kept"] for row in embassies] == [["create-only", "listing", "ranges"]] * 3
    assert say(realm, "embassy", "list", "--probe")["embassies"][0]["immutable"] is False
    shown = say(realm, "register", "show", "papers")
    assert shown["size_bytes"] > 300_000
    assert say(realm, "config", "show", "--effective")["effective"]["home.copies"] == 2
    assert say(realm, "config", "check")["ok"] is True
    assert say(realm, "version")["exclave"]
    assert "quorum-missing" in say(realm, "explain")["topics"]


def test_a_sample_proves_little_and_takes_nothing_back(realm, say):
    say(realm, "protect")
    say(realm, "verify", "--sample", "0.5")
    assert say(realm, "status", expect=3)["verdict"] == "unproven"
    say(realm, "verify")
    say(realm, "verify", "--sample", "0.5")
    assert say(realm, "status")["verdict"] == "protected"


def test_no_embassy_at_all_is_unreachable_and_nothing_is_lost(realm, say, tmp_path):
    (tmp_path / "abroad").rename(tmp_path / "away")
    failed = say(realm, "protect", expect=8)["failed"]
    assert len(failed) == 2
    (tmp_path / "away").rename(tmp_path / "abroad")
    assert {row["sequence"] for row in say(realm, "protect")["snapshots"]} == {1}


def test_a_party_abroad_notices_a_rollback_and_false_papers(realm, say, tmp_path):
    say(realm, "protect")
    say(realm, "protect")
    site = tmp_path / "site"
    site.mkdir()
    realm_id = say(realm, "config", "show", "--effective")["effective"]["realm.id"]
    annex = str(realm / "charter" / "annex.json")
    say(site, "init", "--embassy", "--realm", "Test", "--realm-id", realm_id, "--annex", annex)
    for name in "abc":
        say(site, "embassy", "add", name, str(tmp_path / "abroad" / name), "--no-probe")
    assert say(site, "status", expect=3)["verdict"] == "unproven"
    assert {row["snapshot"] for row in say(site, "status", expect=3)["registers"]} == {2}
    for commit in (tmp_path / "abroad").glob("*/r/*/commit/*/0000000000000002"):
        commit.unlink()
    assert say(site, "status", expect=7)["verdict"] == "rolled back"
    kept = site / "charter" / "annex.json"
    kept.write_bytes(kept.read_bytes().replace(b'"ledger"', b'"lodger"'))
    assert say(site, "status", expect=7)["id"] == "annex-invalid"
    assert say(site, "protect", expect=2)["id"] == "not-home"


def test_what_stops_every_register_is_told_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for words in (["init"], ["register", "add", "a", "a"], ["register", "add", "b", "b"]):
        assert run(words) == 0
    assert run(["embassy", "add", "x", "x"]) == 0
    capsys.readouterr()
    assert run(["protect"]) == 2
    assert capsys.readouterr().err.count("error[no-realm]") == 1


def test_the_way_to_the_first_snapshot_is_told_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "papers").mkdir()
    following: list[str] = []
    for words in (
        "init",
        "register add papers papers",
        "embassy add a abroad/a",
        "embassy add b abroad/b",
        "ceremony --custodian x --custodian y --threshold 2",
    ):
        assert run(words.split()) == 0
        lines = capsys.readouterr().out.splitlines()
        following.append([line for line in lines if line.startswith(("Next:", "Then:"))][-1])
    told = ["register add", "embassy add", "another embassy", "exclave ceremony", "exclave protect"]
    assert all(word in line for word, line in zip(told, following, strict=True)), following


def test_a_share_is_told_only_where_it_says_something(realm, monkeypatch, capsys):
    monkeypatch.chdir(realm)
    (realm / "papers" / "deep" / "two.bin").write_bytes(b"x")
    assert run(["protect"]) == 0
    papers, ledger = [line for line in capsys.readouterr().out.splitlines() if "snapshot 1" in line]
    assert "%" not in papers
    assert "% of it)" in ledger
    assert "in 2 files;" in papers
    assert "in 1 file;" in ledger


def test_readable_copies_of_databases_stay_in_a_folder_of_our_own(realm, say, monkeypatch, tmp_path):
    from exclave.registers.sqlite import copying

    places: list[Path] = []
    real = copying.temporary_folder

    def noting(parent: Path | None) -> Any:
        assert parent is not None
        places.append(parent)
        return real(parent)

    monkeypatch.setattr(copying, "temporary_folder", noting)
    say(realm, "protect", "ledger")
    assert places == [realm / "state" / "temporary"]
    assert places[0].stat().st_mode & 0o777 == 0o700
    assert list(places[0].iterdir()) == []


def test_doctor_is_content_with_folders_and_warns_of_a_single_copy(realm, say):
    findings = {row["id"]: row for row in say(realm, "doctor")["findings"]}
    assert findings["store-not-locked"]["level"] == "ok"
    settings = realm / "exclave.toml"
    settings.write_text(settings.read_text().replace("copies = 2", "copies = 1"))
    findings = {row["id"]: row for row in say(realm, "doctor", expect=3)["findings"]}
    assert findings["copies-single"]["level"] == "warn"
    settings.write_text(settings.read_text().replace("copies = 1", "copies = 4"))
    assert "copies-impossible" in {row["id"] for row in say(realm, "doctor", expect=1)["findings"]}


def test_an_answer_is_not_given_twice(realm, say, tmp_path):
    say(realm, "request", "papers", "--embassy", "a", "--reason", "a mistake")
    again = say(realm, "request", "papers", "--embassy", "a", "--reason", "another", expect=2)
    assert again["id"] == "file-exists"
    custodian = str(tmp_path / "people" / "x")
    say(realm, "approve", "request.exclave", "--as", custodian, "--yes")
    again = say(realm, "approve", "request.exclave", "--as", custodian, "--yes", expect=2)
    assert "x has answered" in again["why"]


def test_long_verbs_look_for_cycles_seldom():
    from exclave.cli import collector

    before = gc.get_threshold()
    try:
        collector.relax()
        assert gc.get_threshold() == collector.THRESHOLD
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def test_a_party_abroad_is_told_to_name_embassies_before_anything_else(realm, say, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    pin = say(realm, "config", "show", "--effective")["effective"]["realm.id"]
    say(site, "init", "--embassy", "--realm-id", pin, "--annex", str(realm / "charter" / "annex.json"))
    assert say(site, "status", expect=2)["id"] == "no-embassies"
    say(site, "embassy", "add", "a", str(tmp_path / "abroad" / "a"), "--no-probe")
    assert say(site, "status", expect=1)["sentence"].endswith("no snapshot is abroad; home can mend that.")


def test_an_interrupted_activation_is_begun_anew(realm, say, monkeypatch):
    from exclave.flows import activate as flow

    say(realm, "protect", "ledger")
    say(realm, "request", "ledger", "--embassy", "a", "--reason", "an exercise")
    approve(say, realm, "x", "y")
    place = realm / "activated" / "ledger"
    real = flow.restore

    def interrupted(*words: Any, **options: Any) -> Any:
        real(*words, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(flow, "restore", interrupted)
        patch.chdir(realm)
        assert run(["activate"]) == 130
    assert (place / "ledger.db").exists()
    (served,) = say(realm, "activate")["activation"]["registers"]
    assert served["place"] == str(place)
    assert [path.name for path in place.parent.iterdir()] == ["ledger"]
    assert say(realm, "activate", expect=4)["id"] == "place-taken"
    assert say(realm, "activate", "--stop", "--yes")["activation"]["ended"]


def test_fields_of_documents_are_on_their_page(realm, say):
    page = (Path(__file__).parents[2] / "docs/reference/json.md").read_text(encoding="utf-8")
    rows = {
        line.split("|")[1].strip(): set(re.findall(r"`(\w+)`", line))
        for line in page.splitlines()
        if "|" in line
    }
    say(realm, "protect")
    for verb, words in {
        "protect": [],
        "verify": [],
        "status": [],
        "doctor": [],
        "snapshots": ["papers"],
        "where": ["papers"],
        "request": ["papers", "--embassy", "a", "--reason", "an exercise"],
    }.items():
        document = say(realm, verb, *words)
        assert document.pop("schema") == f"exclave/{verb}/1"
        told = set(document)
        for rows_of in document.values():
            if isinstance(rows_of, list) and rows_of and isinstance(rows_of[0], dict):
                told |= {str(key) for key in rows_of[0]}
        assert told <= rows[f"`{verb}`"], verb
