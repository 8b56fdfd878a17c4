"""Every parser of foreign bytes answers with a value or an error in the product's own words, in bounded memory."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exclave import codec, config, positions
from exclave.agents import channel
from exclave.catalog import Catalog
from exclave.charter import history
from exclave.crypto import age, sign
from exclave.crypto.open import public_key_of
from exclave.crypto.sign import Signer
from exclave.custody import approval, request
from exclave.errors import ExclaveError, Tampered
from exclave.index_files import ChunkIndex
from exclave.registers.files.register import FilesRegister
from exclave.sealed import commits, container, folding, index_parts, opening
from exclave.sealed.commits import Pack
from exclave.session import Pending, Session
from exclave.testing.realm import make
from exclave.testing.world import SeedOpener, World
from exclave.types import EpochId, ObjectId

Parse = Callable[[bytes], object]
SEED = b"k" * 32
EPOCH = EpochId("a" * 16)
SETTINGS = b"""state = "state"
[realm]
name = "Testland"
[home]
copies = 1
[[register]]
name = "gazette"
id = "0123456789abcdef0123456789abcdef"
kind = "files"
path = "~/gazette"
exclude = ["drafts"]
[[embassy]]
name = "luxembourg"
kind = "s3"
url = "s3://bucket/x"
credentials_file = "c"
"""
# What breaks readers: ends of ranges, other types, and what a terminal or a path reads as a command.
EVIL = [
    b"-1", b"0", b"9007199254740991", b"18446744073709551616", b"1e999", b"NaN", b"null", b"[]", b"{}", b'"\\ud800"',
    b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80", b"\0" * 7 + b"\x40",
    b"\n\n", b"\x1b[2J", b"~nobody-of-this-name/", b"\\u0000", b"[" * 3000, b"9" * 5000,
]  # fmt: skip


@st.composite
def spoiled(draw: st.DrawFn, whole: bytes) -> bytes:
    """The bytes with a few places flipped, cut out, doubled or overwritten."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at, count = draw(st.integers(0, len(data))), draw(st.sampled_from([0, 1, 4, 8, 64]))
        new = draw(st.sampled_from(EVIL) | st.binary(max_size=8) | st.just(bytes(data[:64])))
        match draw(st.sampled_from(["over", "into", "out", "end", "bit"])):
            case "over":
                data[at : at + len(new)] = new
            case "into":
                data[at:at] = new
            case "out":
                del data[at : at + count]
            case "end":
                del data[at:]
            case _:
                data[at : at + 1] = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1])
    return bytes(data)


def records(plain: bytes) -> list[bytes]:
    return [bytes(slot) for slot in opening.slots(memoryview(plain))]


def fold(record: bytes, others: list[bytes]) -> None:
    """The record in the place of each of a manifest in turn, folded and checked."""
    tree = folding.Tree()
    folding.apply(tree, [opening.read_record(memoryview(one)) for one in (record, *others)])
    folding.check(tree)


def signed_again(parse: Parse, kind: bytes, signer: Signer) -> Parse:
    """For documents that are read only when signed: the attacker has the key."""
    return lambda line: parse(signer.sign(kind + b"\n" + line + b"\n"))


def line_of(note: bytes) -> bytes:
    return note.split(b"\n")[1]


@pytest.fixture(scope="module")
def parsers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[list[bytes], Parse]]:
    """By name: good samples, and what reads them."""
    folder = tmp_path_factory.mktemp("foreign")
    source = folder / "source"
    (source / "inner").mkdir(parents=True)
    for name in ("a", "b", "inner/c"):
        (source / name).write_bytes(os.urandom(3000))
    (source / "link").symlink_to("a")
    world = World(folder, FilesRegister(source), sites=1, copies=1)
    world.protect()
    (source / "a").write_bytes(b"new")
    world.protect()
    store, keys, opener = world.embassies[0].store, world.keys, SeedOpener(world.seed)
    objects = {row.name: store.get(row.name, limit=1 << 28) for row in store.list("")}

    def of_kind(word: str) -> list[bytes]:
        return [data for name, data in objects.items() if f"/{word}/" in name]

    def opened(data: bytes) -> bytes:
        header = container.parse(data)
        expected = opening.Expected(header.kind, header.realm, header.register, header.epoch)
        return bytes(opening.open_object(data, expected, opener))

    plains = [opened(data) for data in of_kind("manifest")]
    all_records = [records(plain) for plain in plains]
    notes = of_kind("commit")
    realm = make(people=3, threshold=2, registers=("land",))
    asking = realm.ask()
    person = realm.people[0].signer()
    charter = realm.papers.history.notes[0]

    catalog = folder / "catalog"
    catalog.mkdir()

    def remembered(head: bytes) -> None:
        (catalog / positions.HEAD_FILE).write_bytes(head)
        positions.load(catalog)
        Catalog.load(catalog)

    kept = next(path for path in (folder / "state").rglob(positions.HEAD_FILE))
    pending = folder / "pending"
    for number in (1, 2):
        Session(pending).note(EPOCH, Pending(Pack(ObjectId("b" * 64), number, 5), b"i" * 32))

    def resumed(data: bytes) -> None:
        pending.write_bytes(data)
        Session(pending).pending(EPOCH)

    with ChunkIndex(folder / "index") as index:
        index.add(os.urandom(16 * 300), np.arange(300, dtype=np.int64))
        index.commit()
    run = next(iter((folder / "index").iterdir()))

    def looked_up(data: bytes) -> None:
        run.write_bytes(data)
        with ChunkIndex(folder / "index") as opened_index:
            opened_index.find(bytes(16 * 20))

    ids = codec.encode({"pack": 1, "record": "ids", "rows": 2})
    return {
        "note": (notes, sign.split),
        "signed note": (notes, lambda data: sign.signed_by(data, [world.signer.verifier])),
        "document": ([line_of(notes[0])], codec.decode),
        "commit": (
            [line_of(notes[0])],
            signed_again(
                lambda note: commits.decode(note, world.signer.verifier), commits.TYPE, world.signer
            ),
        ),
        "container": ([of_kind("pack")[0][:200]], container.parse),
        "sealed object": (of_kind("manifest"), opened),
        "table of contents": ([plain[-300:] for plain in plains], lambda data: records(bytes(4096) + data)),
        "record": (
            [record for some in all_records for record in some],
            lambda record: opening.read_record(memoryview(record)),
        ),
        "manifest": (all_records[0][:-1], lambda record: fold(record, all_records[0][-1:])),
        "change": (all_records[1][:-1], lambda record: fold(b"".join([record]), all_records[1][-1:])),
        "index part": (of_kind("index"), lambda data: list(index_parts.read(data, keys.index_key))),
        "index record": (
            [struct.pack(">I", len(ids)) + ids + bytes(32)],
            index_parts.records_of,
        ),
        "charters": ([charter], lambda note: history.verify(realm.charter.realm, [note])),
        "request": ([asking.text], request.parse),
        "approval": (
            [line_of(realm.approve(0, asking))],
            signed_again(lambda note: approval.verify(note, realm.charter), approval.TYPE, person),
        ),
        "age file": (
            [age.encrypt(b"share" * 99, [public_key_of(SEED)])],
            lambda data: age.decrypt(data, SEED),
        ),
        "identity file": ([age.identity_file(SEED)], age.parse_identity_file),
        "settings": (
            [SETTINGS],
            lambda data: config.parse(data.decode("utf-8", "replace"), Path("/nowhere/exclave.toml")),
        ),
        "head of the catalogue": ([kept.read_bytes()], remembered),
        "pending packs": ([pending.read_bytes()], resumed),
        "index run": ([run.read_bytes()], looked_up),
        "headers": ([channel.join_headers([b"h" * 50, b"i"])], channel.split_headers),
    }


NAMES = [
    "note", "signed note", "document", "commit", "container", "sealed object", "table of contents", "record",
    "manifest", "change", "index part", "index record", "charters", "request", "approval", "age file",
    "identity file", "settings", "head of the catalogue", "pending packs", "index run", "headers",
]  # fmt: skip


def try_one(parsers: dict[str, tuple[list[bytes], Parse]], name: str, data: st.DataObject) -> None:
    samples, parse = parsers[name]
    with contextlib.suppress(ExclaveError):
        parse(data.draw(spoiled(data.draw(st.sampled_from(samples)))))


def test_every_parser_is_tried(parsers):
    assert list(parsers) == NAMES


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_spoiled(parsers, name, data):
    try_one(parsers, name, data)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_spoiled_at_length(parsers, name, data):
    try_one(parsers, name, data)


@pytest.mark.parametrize(
    "noise",
    [
        b"aa\n" * (20 << 20),
        b"\xe2\x80\x94 w " + b"A" * (60 << 20) + b"\n",
        b"\xe2\x80\x94 w AAAA\n" * (5 << 20),
    ],
    ids=["many lines", "one long line", "many signatures"],
)
def test_what_a_host_puts_in_the_place_of_signatures_takes_no_memory(noise):
    note = b"text\n\n" + noise
    tracemalloc.start()
    try:
        with pytest.raises(Tampered):
            sign.split(note)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(note) + (32 << 20)


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b'{"position": 1e999}',
        b"[]",
        b'{"tree": ["a", 1], "pages": []}',
        b'{"tree": "\\u0000"}',
    ],
)
def test_a_damaged_head_counts_as_forgotten(tmp_path, head):
    (tmp_path / positions.HEAD_FILE).write_bytes(head)
    assert positions.load(tmp_path) is None
    assert Catalog.load(tmp_path).position is None


def test_a_head_with_numbers_beyond_all_bounds(tmp_path):
    fields = {"epoch": "e", "term": 1, "sequence": 1, "commit_hash": "", "at": 0, "gaps": 0, "manifest": []}
    text = json.dumps({"position": {**fields, "depth": 0, "next_pack": float("inf")}})
    (tmp_path / positions.HEAD_FILE).write_text(text)
    assert positions.load(tmp_path) is None


@pytest.mark.parametrize("value", ["~nobody-of-this-name/x", "a\\u0000b"])
def test_a_path_that_can_be_none(value):
    with pytest.raises(ExclaveError) as refused:
        config.parse(f'state = "{value}"\n[realm]\nname = "T"\n', Path("/nowhere/exclave.toml"))
    assert refused.value.id == "setting-wrong"


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "a = " + "9" * 5000])
def test_settings_that_no_reader_can_take(text):
    with pytest.raises(ExclaveError) as refused:
        config.parse(text, Path("/nowhere/exclave.toml"))
    assert refused.value.id == "settings-unreadable"
