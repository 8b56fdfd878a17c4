"""Instants and spans as people write them; additions to the settings that keep comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from exclave import instants
from exclave.cli import configfile, words
from exclave.config import load, parse
from exclave.errors import Misconfigured


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15min", 900), ("2h", 7200), ("1d", 86_400)]
)
def test_spans(text, seconds):
    assert words.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5h", "soon", "1w", "٣h"])
def test_what_is_no_span(text):
    with pytest.raises(Misconfigured):
        words.seconds(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-21T14:02:07Z", "2026-11-21T14:02:07.000000000Z"),
        ("2026-11-21T15:02:07.5+01:00", "2026-11-21T14:02:07.500000000Z"),
        ("1999-12-31T23:59:59Z", "1999-12-31T23:59:59.000000000Z"),
    ],
)
def test_instants(text, instant):
    assert instants.to_text(words.instant(text)) == instant


@pytest.mark.parametrize("text", ["2026-11-21T14:02:07", "2026-11-21", "14:02", "yesterday", ""])
def test_what_is_no_instant(text):
    with pytest.raises(Misconfigured):
        words.instant(text)


def test_additions_keep_comments_and_order(tmp_path: Path):
    file = tmp_path / "exclave.toml"
    configfile.create(file, configfile.template('A "quoted" name', home=True) + "# a remark at the end\n")
    configfile.add(file, "register", {"name": "a", "id": "0" * 32, "kind": "files", "path": "x"})
    configfile.add(
        file, "register", {"name": "b", "id": "1" * 32, "kind": "files", "path": "y", "exclude": ["*.tmp"]}
    )
    configfile.add(file, "embassy", {"name": "lu", "kind": "directory", "path": "z"})
    configfile.pin_realm(file, "ab" * 32)
    text = file.read_text()
    assert "# a remark at the end" in text
    assert "# Write keys: they seal and recognise" in text
    config = load(file)
    assert config.realm.name == 'A "quoted" name'
    assert config.realm.id == "ab" * 32
    assert [row.name for row in config.registers] == ["a", "b"]
    assert config.registers[1].exclude == ("*.tmp",)
    assert config.registers[0].path == tmp_path / "x"
    assert config.embassies[0].path == tmp_path / "z"
    with pytest.raises(Misconfigured) as other:
        configfile.pin_realm(file, "cd" * 32)
    assert other.value.id == "other-realm"


def test_an_addition_that_does_not_fit_changes_nothing(tmp_path: Path):
    file = tmp_path / "exclave.toml"
    configfile.create(file, configfile.template("K", home=True))
    before = file.read_bytes()
    with pytest.raises(Misconfigured):
        configfile.add(file, "register", {"name": "Not A Name", "id": "0" * 32, "kind": "files", "path": "x"})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["exclave.toml"]


@pytest.mark.parametrize(
    ("text", "error_id"),
    [
        ("[realm]\nname = 1\n", "setting-wrong"),
        ("[realm]\nname = 'k'\nid = 'abc'\n", "setting-wrong"),
        ("[realm]\nname = 'k'\n[home]\ncopies = true\n", "setting-wrong"),
        ("[realm]\nname = 'k'\n[home]\ncopies = 0\n", "setting-wrong"),
        ("[realm]\nname = 'k'\n[hone]\n", "unknown-setting"),
        ("[realm]\nname = 'k'\n[[embassy]]\nname = 'a'\nkind = 's3'\nurl = 's3://b'\n", "setting-wrong"),
        ("[realm]\nname = 'k'\nembassy = 3\n", "unknown-setting"),
        ("embassy = 3\n[realm]\nname = 'k'\n", "setting-wrong"),
        ("realm = 'k'\n", "setting-wrong"),
        ("[realm\n", "settings-unreadable"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, text: str, error_id: str):
    file = tmp_path / "exclave.toml"
    file.write_text(text)
    with pytest.raises(Misconfigured) as error:
        load(file)
    assert error.value.id == error_id


def test_a_name_that_cannot_be_is_told_what_names_are_made_of(tmp_path: Path):
    text = '[realm]\nname = "R"\n[[embassy]]\nname = "Oslo"\nkind = "directory"\npath = "x"\n'
    with pytest.raises(Misconfigured) as caught:
        parse(text, tmp_path / "exclave.toml")
    assert caught.value.id == "setting-wrong"
    assert "lower-case" in caught.value.why


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_is_no_plural(count: int, text: str):
    assert words.plural(count, "file") == text
