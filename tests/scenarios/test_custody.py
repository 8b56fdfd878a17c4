"""A realm is made, asked, and opened by its custodians: the verbs as people use them, on real files."""

from __future__ import annotations

import json
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from exclave import config as settings
from exclave import keyfiles, wiring
from exclave.agents.keyholder_client import KeyholderClient
from exclave.cli.main import run
from exclave.crypto import age, seal
from exclave.errors import QuorumMissing, Refused
from exclave.flows.request import read, seed_file
from exclave.sealed import container

PEOPLE = ("anna", "bela", "carl", "dora", "emil")


@dataclass
class Party:
    """A folder in which verbs are run."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: object, code: int = 0) -> dict:
        """One verb with --json; its document."""
        os.chdir(self.folder)
        seen = run([str(word) for word in (*words, "--json")])
        out, err = self.capsys.readouterr()
        assert seen == code, err
        return json.loads(out) if out else {}

    def config(self) -> settings.Config:
        return settings.load(self.folder / "exclave.toml")

    def add_embassy(self, name: str, place: Path) -> None:
        place.mkdir(exist_ok=True)
        with (self.folder / "exclave.toml").open("a") as stream:
            stream.write(f'\n[[embassy]]\nname = "{name}"\nkind = "directory"\npath = "{place}"\n')


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Party:
    """A home with one register, one embassy and no realm yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EXCLAVE_CONFIG", raising=False)
    for name in ("home", "acts", "abroad"):
        (tmp_path / name).mkdir()
    (tmp_path / "acts" / "1.txt").write_text("Act 1")
    party = Party(tmp_path / "home", capsys)
    party.run("init", "--realm", "Testland")
    party.run("register", "add", "gazette", tmp_path / "acts")
    party.add_embassy("luxembourg", tmp_path / "luxembourg")
    return party


def ceremony(home: Party, *people: str, code: int = 0, **options: object) -> dict:
    words = [word for name in people or PEOPLE for word in ("--custodian", name)]
    words += [word for key, value in options.items() for word in (f"--{key}", value)]
    return home.run("ceremony", *words, code=code)


def custodian(home: Party, name: str) -> Path:
    return home.folder / "custodians" / name


def abroad(home: Party) -> Party:
    """A party that has nothing but the realm's id, the annex, and its embassy."""
    party = Party(home.folder.parent / "abroad", home.capsys)
    party.run("init", "--realm", "Testland", "--embassy")
    text = (party.folder / "exclave.toml").read_text()
    pinned = home.config().realm.id
    (party.folder / "exclave.toml").write_text(text.replace("[realm]", f'[realm]\nid = "{pinned}"'))
    party.add_embassy("luxembourg", home.folder.parent / "luxembourg")
    annex = party.folder / "charter" / "annex.json"
    annex.parent.mkdir()
    annex.write_bytes((home.folder / "charter" / "annex.json").read_bytes())
    return party


def header(home: Party) -> tuple[bytes, bytes]:
    """What home would seal for its register, and the content key in it."""
    config = home.config()
    keys = keyfiles.read_write_keys(
        config.at_home().keys, wiring.papers(config).charter, config.registers[0].id
    )
    fixed = container.Header(1, 4096, keys.realm, keys.register, keys.epoch, keys.term, 1, 1).fixed()
    recipient, key = seal.recipient_id(keys.recipients[0]), os.urandom(32)
    info = container.capsule_info(fixed, recipient)
    return fixed + recipient + seal.capsule(key, keys.recipients[0], info), key


def open_session(party: Party, request: Path, answers: list[Path]) -> KeyholderClient:
    config, text = party.config(), read(request)
    return KeyholderClient.open(
        wiring.papers(config), text, [path.read_bytes() for path in answers], seed_file(config.state, text)
    )


def test_home_is_lost_and_three_of_five_open_its_register_abroad(home):
    made = ceremony(home)
    assert made["threshold"] == 3
    assert made["reached"] == ["luxembourg"]
    sealed, key = header(home)
    there = abroad(home)
    asked = there.run("request", "gazette", "--reason", "home is dark")
    request = there.folder / asked["file"]
    answers = []
    for name in ("anna", "carl"):
        told = there.run("approve", request, "--as", custodian(home, name), "--yes")
        assert told["fingerprint"] == asked["fingerprint"]
        assert told["embassy"] == "luxembourg"
        answers.append(there.folder / told["file"])
    refusal = there.run(
        "approve", request, "--as", custodian(home, "bela"), "--refuse", "--reason", "nobody called"
    )
    answers.append(there.folder / refusal["file"])
    with pytest.raises(QuorumMissing, match=r"2 did \(anna, carl\); bela refused") as caught:
        open_session(there, request, answers)
    assert caught.value.exit_code == 5
    assert there.run("restore", "gazette", "--to", "back", code=5)["id"] == "quorum-missing"
    assert not (there.folder / "back").exists()
    told = there.run("approve", request, "--as", custodian(home, "emil"), "--yes")
    answers.append(there.folder / told["file"])
    with open_session(there, request, answers) as opener:
        assert opener.content_key(sealed) == key


def test_what_hosts_hold_names_nobody_and_opens_nothing(home):
    ceremony(home)
    secrets = [(custodian(home, name) / "signing.seed").read_bytes() for name in PEOPLE]
    secrets += [
        age.parse_identity_file((custodian(home, name) / "identity.txt").read_bytes()) for name in PEOPLE
    ]
    keys = keyfiles.read_write_keys(
        home.config().at_home().keys, wiring.papers(home.config()).charter, home.config().registers[0].id
    )
    secrets += [keys.id_key, keys.index_key, (home.folder / "keys" / "writer.seed").read_bytes()]
    names = [name.encode() for name in (*PEOPLE, "gazette", "Testland", "luxembourg")]
    held = [p for p in (home.folder.parent / "luxembourg").rglob("*") if p.is_file()]
    assert len(held) == 2
    for path in held:
        data = path.read_bytes()
        # Four letters turn up in base64 by themselves; as a word of the document they would stand in quotes.
        assert not any(b'"' + name + b'"' in data for name in names)
        assert not any(s in data or s.hex().encode() in data or seal_text(s) in data for s in secrets)


def seal_text(secret: bytes) -> bytes:
    import base64

    return base64.b64encode(secret).rstrip(b"=")[:-1]


def test_secrets_are_for_their_owner_only(home):
    ceremony(home)
    folders = [home.folder / "keys", *(custodian(home, name) for name in PEOPLE)]
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for path in folder.rglob("*"):
            assert not path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o600
    (custodian(home, "anna") / "identity.txt").chmod(0o644)
    home.run("request", "gazette", "--reason", "test")
    told = home.run("approve", "request.exclave", "--as", custodian(home, "anna"), "--yes", code=2)
    assert told["id"] == "secret-exposed"


def test_a_register_and_an_embassy_are_added_later(home):
    ceremony(home)
    home.run("register", "add", "archive", home.folder.parent / "acts")
    home.add_embassy("estonia", home.folder.parent / "estonia")
    present = [word for name in ("anna", "bela", "dora") for word in ("--as", custodian(home, name))]
    told = home.run("ceremony", *present[:4], code=5)
    assert told["id"] == "charter-unsigned"
    told = home.run("ceremony", *present)
    assert (told["charter"], told["added"], told["reached"]) == (2, ["archive"], ["luxembourg", "estonia"])
    asked = home.run("request", "archive", "gazette", "--reason", "a drill", "--embassy", "estonia")
    absent = home.run("approve", asked["file"], "--as", custodian(home, "emil"), "--yes", code=4)
    assert absent["id"] == "request-other-charter"
    home.run("ceremony", "--as", custodian(home, "emil"))
    answers = [
        home.folder / home.run("approve", asked["file"], "--as", custodian(home, name), "--yes")["file"]
        for name in ("anna", "dora", "emil")
    ]
    sealed, key = header(home)
    with open_session(home, home.folder / asked["file"], answers) as opener:
        assert opener.content_key(sealed) == key


def test_an_embassy_that_could_not_be_reached_is_told(home, monkeypatch):
    monkeypatch.setattr("exclave.cli.ceremony.PATIENCE_SECONDS", 0.1)
    place = home.folder.parent / "nowhere"
    home.add_embassy("nowhere", place)
    place.rmdir()
    place.write_text("not a folder")
    told = ceremony(home, code=3)
    assert list(told["unreached"]) == ["nowhere"]
    assert told["reached"] == ["luxembourg"]


def test_a_second_realm_is_not_made_over_the_first(home):
    ceremony(home)
    assert ceremony(home, out="others", code=2)["id"] == "realm-exists"
    assert not (home.folder / "others").exists()


def test_a_custodians_folder_is_never_overwritten(home):
    custodian(home, "emil").mkdir(parents=True)
    assert ceremony(home, code=2)["id"] == "file-exists"
    assert not custodian(home, "anna").exists()
    assert not (home.folder / "charter").exists()


@pytest.mark.parametrize(
    "names", [("../anna", "b", "c"), (".a", "b", "c"), ("a", "a", "c"), ("x" * 63, "b", "c")]
)
def test_a_name_that_cannot_be_a_folder(home, names):
    assert ceremony(home, *names, code=2)["id"] == "custodian-name-wrong"


@pytest.mark.parametrize("threshold", [1, 2, 6])
def test_a_threshold_that_no_realm_may_have(home, threshold):
    assert ceremony(home, threshold=threshold, code=4)["id"] == "charter-refused"
    assert not (home.folder / "custodians").exists()


def test_a_request_from_an_embassy_that_nobody_named(home):
    ceremony(home)
    asked = home.run("request", "gazette", "--reason", "trust me", "--embassy", "atlantis")
    words = ("approve", asked["file"], "--as", custodian(home, "anna"), "--yes")
    assert home.run(*words, code=4)["id"] == "embassy-unnamed"
    assert home.run(*words, "--unnamed-embassy")["embassy"] is None


def test_a_person_confirms_by_the_realms_name(home):
    ceremony(home)
    home.run("request", "gazette", "--reason", "home is dark")
    told = home.run("approve", "request.exclave", "--as", custodian(home, "anna"), code=4)
    assert told["id"] == "not-confirmed"
    assert "home is dark" in told["why"]  # the sentence that a signature would have meant
    assert not list(home.folder.glob("*.approval"))


def test_a_look_signs_nothing(home):
    ceremony(home)
    asked = home.run("request", "gazette", "--reason", "home is dark", "--valid", "2h")
    told = home.run("approve", "request.exclave", "--as", custodian(home, "anna"), "--dry-run")
    assert (told["signed"], told["fingerprint"]) == (False, asked["fingerprint"])
    assert not list(home.folder.glob("*.approval"))


def test_a_request_that_was_altered_has_another_fingerprint(home):
    """A man in the middle puts in his own key: the approvals open nothing for him without being noticed."""
    ceremony(home)
    asked = home.run("request", "gazette", "--reason", "home is dark")
    path = home.folder / asked["file"]
    path.write_bytes(path.read_bytes().replace(b"home is dark", b"home is fine"))
    told = home.run("approve", path, "--as", custodian(home, "anna"), "--dry-run")
    assert told["fingerprint"] != asked["fingerprint"]


def test_a_request_waits_for_nobody_after_its_deadline(home):
    ceremony(home)
    home.run("request", "gazette", "--reason", "quick", "--valid", "1s")
    time.sleep(1.1)
    assert home.run("approve", "request.exclave", "--as", custodian(home, "anna"), "--yes", code=4)["id"] == (
        "request-expired"
    )


def test_the_secret_of_a_request_that_is_over_is_removed(home):
    ceremony(home)
    home.run("request", "gazette", "--reason", "quick", "--valid", "1s", "--out", "quick")
    first = seed_file(home.config().state, read(home.folder / "quick"))
    assert first.exists()
    time.sleep(1.1)
    home.run("request", "gazette", "--reason", "again")
    assert not first.exists()
    assert len(list(first.parent.iterdir())) == 2


def test_an_old_secret_does_not_open_a_new_request(home):
    ceremony(home)
    config = home.config()
    old = home.run("request", "gazette", "--reason", "first", "--out", "first")
    new = home.run("request", "gazette", "--reason", "second", "--out", "second")
    answers = [
        home.folder / home.run("approve", "first", "--as", custodian(home, name), "--yes")["file"]
        for name in ("anna", "bela", "carl")
    ]
    assert old["request"] != new["request"]
    with pytest.raises(Refused, match="another request"):
        open_session(home, home.folder / "second", answers)
    text = read(home.folder / "second")
    assert seed_file(config.state, text).stat().st_mode & 0o777 == 0o600


def test_the_transcript_is_signed_and_names_nobody(home):
    told = ceremony(home)
    assert len(re.findall("^— ", told["transcript"], re.MULTILINE)) == 2 * len(PEOPLE)
    assert "anna" not in told["transcript"]
    assert (home.folder / "custodians" / "ceremony-00000001.note").read_text() == told["transcript"]


def test_every_share_is_also_an_age_file(home):
    ceremony(home)
    for name in PEOPLE:
        (path,) = (custodian(home, name) / "shares").iterdir()
        seed = age.parse_identity_file((custodian(home, name) / "identity.txt").read_bytes())
        assert age.decrypt(path.read_bytes(), seed).startswith(b"exclave/share/v1\n")
