"""The stand-alone reader restores what a second writer, made from the specification, wrote; and refuses the rest."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
import sqlite3
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import zstandard

SEED = bytes(range(32))
PAGE = 8192


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    path = tmp_path / "seed"
    path.write_bytes(SEED)
    path.chmod(0o600)
    return path


@pytest.fixture
def restore(
    reader: ModuleType, tmp_path: Path, seed_file: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, Path, str]]:
    """Restores into tmp_path/out; returns the exit code, the place and what was said."""

    def run(*options: str, register: str = "5a" * 16, seed: Path = seed_file) -> tuple[int, Path, str]:
        out = tmp_path / "out"
        before, after = (
            [item for item in options if "=" in item],
            [item for item in options if "=" not in item],
        )
        code = reader.main(
            [
                str(tmp_path / "store"),
                str(seed),
                *before,
                "restore",
                "--register",
                register,
                "--to",
                str(out),
                *after,
            ]
        )
        said = capsys.readouterr()
        assert code in {0, 3} or not out.exists(), "a refused restore leaves nothing behind"
        assert not (tmp_path / "out.partial").exists()
        return code, out, said.out + said.err

    return run


def bytes_of(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def w(writing: ModuleType, tmp_path: Path) -> Any:
    return writing.Writer(tmp_path / "store", SEED)


class Story:
    """A tree with a paged file, then a change of it: patches, an added and a removed entry, a folder that went."""

    def __init__(self, writing: ModuleType, w: Any) -> None:
        self.w, row = w, writing.Row
        self.note, self.long = (
            b"a note\n" * 40,
            [bytes_of(n, size) for n, size in enumerate((700_000, 900_000, 5))],
        )
        self.pages = [bytes_of(100 + n, PAGE) for n in range(300)]
        self.pages[-1] = self.pages[-1][:1000]
        self.table = b"".join(self.pages)
        self.sparse = b"in the middle"
        first = w.pack(7, [self.note, *self.long[:2], self.sparse])
        second = w.pack(9, [self.long[2], *self.pages])
        extents = [self.table[at : at + (1 << 20)] for at in range(0, len(self.table), 1 << 20)]
        self.top = {
            b".": row(writing.FOLDER),
            b"note": row(writing.FILE, len(self.note), [(first, 1)], w.digest(self.note)),
            b"empty": row(writing.FILE, extra={}),
            b"db": row(writing.FOLDER),
            b"old": row(writing.FOLDER),
            b"pipe": row(writing.FIFO),
            b"\xff\xfename": row(writing.LINK, 4, extra={"target": writing.b64(b"note")}),
            b"zz-twin": row(writing.FILE, len(self.note), extra={"twin": writing.b64(b"note")}),
            b"long": row(
                writing.FILE,
                sum(map(len, self.long)),
                [(first + 1, 2), (second, 1)],
                w.digest(*self.long),
                at=[0, 1_600_000],
                extra={"xattrs": [[writing.b64(b"user.colour"), writing.b64(b"blue")]]},
            ),
            b"sparse": row(
                writing.FILE,
                3_000_000,
                [(first + 3, 1)],
                w.digest(self.sparse),
                extra={"holes": [[4096, 5], [2_000_000, 8]]},
            ),
            b"hollow": row(writing.FILE, 1 << 30, extra={"holes": []}),
        }
        table = row(writing.FILE, len(self.table), [(second + 1, 300)], w.digest(*extents), page=PAGE)
        self.manifest = w.snapshot(
            {b"": self.top, b"db": {b"table": table, b"1": table}, b"old": {b"gone": row(writing.FILE)}}
        )
        self.row, self.writing = row, writing

    def change(self) -> None:
        w, row = self.w, self.row
        fresh = [bytes_of(500 + n, PAGE) for n in range(12)]
        at = w.pack(10, fresh)
        longer = [*self.pages]
        longer[17], longer[299:] = fresh[0], fresh[1:12]
        self.longer = b"".join(longer)
        self.shorter = self.pages[0] + fresh[2] + self.pages[2][:10]
        patched = row(
            self.writing.FILE,
            len(self.longer),
            [(at, 1), (at + 1, 11)],
            w.digest(*[self.longer[n : n + (1 << 20)] for n in range(0, len(self.longer), 1 << 20)]),
            page=PAGE,
            at=[17, 299],
            patched=True,
        )
        last = w.pack(11, [self.pages[2][:10]])
        cut = row(
            self.writing.FILE,
            len(self.shorter),
            [(at + 2, 1), (last, 1)],
            w.digest(self.shorter),
            page=PAGE,
            at=[1, 2],
            patched=True,
        )
        self.manifest = w.snapshot(
            {b"db": {b"table": patched, b"2": row(self.writing.FILE), b"1": cut}},
            removed={b"": [b"old", b"note", b"zz-twin"]},
            gone=(b"old",),
            parents=self.manifest,
            depth=1,
        )


@pytest.fixture
def story(writing: ModuleType, w: Any) -> Story:
    return Story(writing, w)


def test_a_tree_comes_back_with_every_attribute(story: Story, restore: Any, writing: ModuleType) -> None:
    code, out, said = restore()
    assert code == 0, said
    assert (out / "note").read_bytes() == story.note
    assert (out / "long").read_bytes() == b"".join(story.long)
    assert (out / "db/table").read_bytes() == story.table
    assert (out / "empty").read_bytes() == b""
    assert (out / "zz-twin").stat().st_ino == (out / "note").stat().st_ino
    assert os.readlink(os.fsencode(out) + b"/\xff\xfename") == b"note"
    assert stat.S_ISFIFO((out / "pipe").stat().st_mode)
    assert os.getxattr(out / "long", "user.colour") == b"blue"
    sparse = bytearray(3_000_000)
    sparse[4096:4101], sparse[2_000_000:2_000_008] = story.sparse[:5], story.sparse[5:]
    assert (out / "sparse").read_bytes() == sparse
    assert ((out / "hollow").stat().st_size, (out / "hollow").stat().st_blocks) == (1 << 30, 0)
    for path in (out, out / "db", out / "note", out / "pipe"):
        assert path.stat().st_mtime_ns == 1_700_000_000_123_456_789
    assert stat.S_IMODE((out / "db").stat().st_mode) == 0o750
    assert stat.S_IMODE((out / "note").stat().st_mode) == 0o640


def test_a_change_is_laid_over_the_snapshot_before(story: Story, restore: Any) -> None:
    story.change()
    code, out, said = restore()
    assert code == 0, said
    assert sorted(os.listdir(out / "db")) == ["1", "2", "table"]
    assert (out / "db/table").read_bytes() == story.longer
    assert (out / "db/1").read_bytes() == story.shorter
    assert not (out / "old").exists()
    assert not (out / "note").exists()


def test_an_earlier_snapshot_comes_back_too(story: Story, restore: Any) -> None:
    story.change()
    code, out, said = restore("--sequence", "1")
    assert code == 0, said
    assert (out / "db/table").read_bytes() == story.table
    assert (out / "old/gone").exists()


def test_the_program_runs_alone(story: Story, tmp_path: Path, seed_file: Path) -> None:
    program = Path(__file__).parents[3] / "tools" / "exclave_reader.py"
    command = [sys.executable, "-I", str(program), str(tmp_path / "store"), str(seed_file)]
    listed = subprocess.run([*command, "list"], capture_output=True, text=True, check=True).stdout
    assert listed.startswith("5a" * 16 + "  Land (files)")
    assert "1  2026-03-01T12:00:00.000000001Z  term 3  full  2 packs" in listed
    ask = ["restore", "--register", "5a" * 16, "--to", str(tmp_path / "alone")]
    assert subprocess.run([*command, *ask], capture_output=True, text=True, check=True).returncode == 0
    assert (tmp_path / "alone/note").read_bytes() == story.note


def test_a_seed_in_hex_opens_as_well(story: Story, restore: Any, tmp_path: Path) -> None:
    path = tmp_path / "hex"
    path.write_text(SEED.hex() + "\n")
    path.chmod(0o600)
    assert restore(seed=path)[0] == 0


def test_sqlite_is_asked_itself(writing: ModuleType, w: Any, restore: Any, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "made") as database:
        database.execute("CREATE TABLE parcels (n)")
        database.executemany("INSERT INTO parcels VALUES (?)", [(n,) for n in range(5000)])
    database.close()
    raw = (tmp_path / "made").read_bytes()
    pages = [raw[at : at + 4096] for at in range(0, len(raw), 4096)]
    row = writing.Row(writing.FILE, len(raw), [(w.pack(1, pages), len(pages))], w.digest(raw), page=4096)
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"parcels.db": row}}, kind="sqlite")
    code, out, said = restore()
    assert code == 0, said
    assert "integrity check: ok" in said
    assert (out / "parcels.db").read_bytes() == raw


# -- joining shares -------------------------------------------------------------------------------


class Custodians:
    """The decrypted share files of a set of five made by another implementation, of which any three suffice."""

    def __init__(self, reader: ModuleType, place: Path) -> None:
        cases = json.loads((Path(__file__).parents[2] / "vectors/custody/shares.json").read_text())["cases"]
        case = next(c for c in cases if c["threshold"] == 3 and c["made_by"].startswith("shamir"))
        self.reader, self.place, self.secret = reader, place, bytes.fromhex(case["secret"])
        key = reader.key_pair(self.secret)[0].hex()
        self.documents = [
            {"set": "ab" * 16, "register": "5a" * 16, "epoch": "0e" * 8, "key": key, "threshold": 3, "x": x,
             "share": base64.b64encode(bytes.fromhex(data)).decode()}
            for x, data in case["shares"]
        ]  # fmt: skip

    def join(self, *chosen: int, mode: int = 0o600, kind: bytes = b"exclave/share/v1") -> int:
        paths = []
        for number in chosen:
            paths.append(self.place / f"share-{number}")
            spelled = json.dumps(self.documents[number], sort_keys=True, separators=(",", ":")).encode()
            paths[-1].touch(mode=mode)
            paths[-1].write_bytes(kind + b"\n" + spelled + b"\n")
        return self.reader.main([str(self.place / "store"), str(self.seed), "join", *map(str, paths)])

    @property
    def seed(self) -> Path:
        return self.place / "joined"


@pytest.fixture
def custodians(reader: ModuleType, tmp_path: Path) -> Custodians:
    return Custodians(reader, tmp_path)


@pytest.mark.parametrize("chosen", [(0, 1, 2), (4, 2, 3), (0, 1, 2, 3, 4)])
def test_enough_shares_join_to_a_private_seed(chosen: tuple[int, ...], custodians: Custodians) -> None:
    assert custodians.join(*chosen) == 0
    assert custodians.seed.read_bytes() == custodians.secret
    assert stat.S_IMODE(custodians.seed.stat().st_mode) == 0o600
    assert custodians.join(*chosen) == 1, "a seed that is there already stays"


def test_shares_that_do_not_give_the_registers_key_make_no_seed(
    custodians: Custodians, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def refused(*chosen: int, code: int = 7, **how: Any) -> None:
        assert custodians.join(*chosen, **how) == code
        assert not custodians.seed.exists()
        said.append(capsys.readouterr().err)

    refused(0, 1)
    refused(0, 1, 1)
    refused(0, 1, 2, kind=b"exclave/other/v1")
    good = dict(custodians.documents[2])
    for name, value in {"share": custodians.documents[3]["share"], "set": "cd" * 16, "x": 3}.items():
        custodians.documents[2] = good | {name: value}
        refused(0, 1, 2)
    custodians.documents[2] = good
    refused(0, 1, 2, 4, code=2, mode=0o644)  # the last one is new, and public
    wanted = ["are needed, 2", "are needed, 2", "no decrypted share", "a share is wrong", "not of one set"]
    wanted += ["a share is wrong", "chmod 600"]
    assert [part in line for part, line in zip(wanted, said, strict=True)] == [True] * 7, said


# -- what must be refused -------------------------------------------------------------------------


def objects(tmp_path: Path, kind: str) -> list[Path]:
    return sorted(
        path for path in (tmp_path / "store").rglob("*") if path.is_file() and f"/{kind}/" in str(path)
    )


@pytest.mark.parametrize("kind", ["pack", "manifest"])
def test_a_flipped_truncated_or_missing_object_is_refused(
    kind: str, story: Story, restore: Any, tmp_path: Path
) -> None:
    for path in objects(tmp_path, kind):
        whole = path.read_bytes()
        for broken in (whole[:-1], whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], whole + b"\0"):
            path.write_bytes(broken)
            code, _, said = restore()
            assert (code, path.name in said) == (7, True), said
        path.unlink()
        code, _, said = restore()
        assert (code, path.name in said) == (7, True), said
        path.write_bytes(whole)
    assert restore()[0] == 0


def test_two_packs_cannot_be_swapped(story: Story, restore: Any, tmp_path: Path) -> None:
    one, other = objects(tmp_path, "pack")
    one.write_bytes(other.read_bytes())
    assert restore()[0] == 7


def test_a_pack_under_another_packs_number_is_refused(writing: ModuleType, w: Any, restore: Any) -> None:
    w.pack(1, [b"first"]), w.pack(2, [b"other"])
    w.packs = [(3 - number, name, size) for number, name, size in w.packs]
    rows = {
        b".": writing.Row(writing.FOLDER),
        b"f": writing.Row(writing.FILE, 5, [(1 << 20, 1)], w.digest(b"other")),
    }
    w.snapshot({b"": rows})
    code, _, said = restore()
    assert (code, "another term or number" in said) == (7, True), said


def test_an_object_of_another_register_or_epoch_is_refused(
    writing: ModuleType, w: Any, restore: Any, tmp_path: Path
) -> None:
    for other in ({"register": "77" * 16}, {"epoch": "99" * 8}):
        stranger = writing.Writer(tmp_path / "elsewhere", SEED, **other)
        stranger.pack(1, [b"first"])
        w.register, w.epoch, kept = stranger.register, stranger.epoch, (w.register, w.epoch)
        sealed = stranger.container(1, 1, stranger.plain([b"first"]))
        w.register, w.epoch = kept
        w.packs = [(1, *w.put("pack", sealed))]
        rows = {
            b".": writing.Row(writing.FOLDER),
            b"f": writing.Row(writing.FILE, 5, [(1 << 20, 1)], w.digest(b"first")),
        }
        w.snapshot({b"": rows})
        code, _, said = restore()
        assert (code, "another realm, register or epoch" in said) == (7, True), said


def test_another_seed_opens_nothing(story: Story, restore: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(32))
    other.chmod(0o600)
    code, _, said = restore(seed=other)
    assert (code, "another register or epoch" in said) == (7, True), said


@pytest.mark.parametrize(("raw", "mode"), [(SEED, 0o644), (SEED[:31], 0o600), (b"not hex" * 10, 0o600)])
def test_a_seed_that_is_public_or_no_seed_is_not_used(
    raw: bytes, mode: int, story: Story, restore: Any, seed_file: Path
) -> None:
    seed_file.write_bytes(raw)
    seed_file.chmod(mode)
    assert restore()[0] == 2


def test_a_file_that_is_not_what_the_manifest_says_is_refused(
    writing: ModuleType, w: Any, restore: Any
) -> None:
    rows = {
        b".": writing.Row(writing.FOLDER),
        b"f": writing.Row(writing.FILE, 5, [(w.pack(1, [b"first"]), 1)], w.digest(b"other")),
    }
    w.snapshot({b"": rows})
    code, _, said = restore()
    assert (code, "f does not have the digest" in said) == (7, True), said


def test_a_broken_chain_is_refused(story: Story, restore: Any, tmp_path: Path) -> None:
    story.change()
    first, second = objects(tmp_path, "commit")
    whole = first.read_bytes()
    first.write_bytes(whole.replace(b'"gaps":0', b'"gaps":1'))
    assert restore()[0] == 7
    first.unlink()
    code, _, said = restore()
    assert (code, "before commit 2 is missing" in said) == (7, True), said
    first.write_bytes(whole)
    assert restore()[0] == 0
    del second


def test_signatures_are_checked_when_the_writer_is_known(story: Story, restore: Any, tmp_path: Path) -> None:
    keys = tmp_path / "writer"
    keys.write_bytes(story.w.charter())
    commit = objects(tmp_path, "commit")[0]
    whole = commit.read_bytes()
    for line in (1, 2):
        text = whole.decode().splitlines(keepends=True)
        del text[2 + line]
        commit.write_bytes("".join(text).encode())
        assert "lacks one of its writer's two signatures" in restore(f"--charter={keys}")[2]
    commit.write_bytes(whole.replace(b'"gaps":0', b'"gaps":1'))
    code, _, said = restore(f"--charter={keys}")
    assert (code, "signature is not its writer's" in said) == (7, True), said
    commit.write_bytes(whole)
    code, _, said = restore(f"--charter={keys}")
    assert (code, "signatures not checked" in said) == (0, False), said


@pytest.mark.parametrize("name", [b"..", b"a/b", b"", b"."])
def test_a_name_that_leads_elsewhere_is_refused(
    name: bytes, writing: ModuleType, w: Any, restore: Any
) -> None:
    top = {b".": writing.Row(writing.FOLDER), b"sub": writing.Row(writing.FOLDER)}
    w.snapshot({b"": top, b"sub": {name: writing.Row(writing.FILE)}})
    code, _, said = restore()
    assert (code, "harmful name" in said) == (7, True), said


def test_a_folder_behind_a_symbolic_link_is_refused(
    writing: ModuleType, w: Any, restore: Any, tmp_path: Path
) -> None:
    link = writing.Row(writing.LINK, extra={"target": writing.b64(os.fsencode(tmp_path))})
    w.snapshot(
        {b"": {b".": writing.Row(writing.FOLDER), b"out": link}, b"out": {b"x": writing.Row(writing.FILE)}}
    )
    assert restore()[0] == 7
    assert not (tmp_path / "x").exists()


def test_a_database_that_is_none_is_refused(writing: ModuleType, w: Any, restore: Any) -> None:
    raw = b"SQLite format 3\0" + bytes(4080)
    row = writing.Row(writing.FILE, 4096, [(w.pack(1, [raw]), 1)], w.digest(raw), page=4096)
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"parcels.db": row}}, kind="sqlite")
    assert restore()[0] == 7


def test_a_database_that_contradicts_itself_is_refused(
    writing: ModuleType, w: Any, restore: Any, tmp_path: Path
) -> None:
    database = sqlite3.connect(tmp_path / "made", isolation_level=None)
    database.execute("CREATE TABLE parcels (n)")
    database.execute("INSERT INTO parcels VALUES (NULL)")
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE parcels (n NOT NULL)'")
    database.close()
    raw = (tmp_path / "made").read_bytes()
    pages = [raw[at : at + 4096] for at in range(0, len(raw), 4096)]
    row = writing.Row(writing.FILE, len(raw), [(w.pack(1, pages), len(pages))], w.digest(raw), page=4096)
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"parcels.db": row}}, kind="sqlite")
    code, _, said = restore()
    assert (code, "fails SQLite's integrity check" in said) == (7, True), said


def test_a_folder_that_holds_something_is_left_alone(
    story: Story, reader: ModuleType, tmp_path: Path, seed_file: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    ask = [str(tmp_path / "store"), str(seed_file), "restore", "--register", "5a" * 16, "--to", str(out)]
    (out / "mine").touch()
    assert reader.main(ask) == 2
    (out / "mine").unlink()
    assert reader.main(ask) == 0, "an empty one is taken"


@pytest.mark.parametrize(
    "extra",
    [
        {"target": "bm8AbmU="},
        {"target": 3},
        {"target": "not base64"},
        {"target": "YQ"},
        {"target": "YR=="},
        7,
    ],
)
def test_a_malformed_link_is_refused(
    extra: dict[str, Any], writing: ModuleType, w: Any, restore: Any
) -> None:
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"link": writing.Row(writing.LINK, extra=extra)}})
    assert restore()[0] == 7


def put(at: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda raw: raw[:at] + value + raw[at + len(value) :]


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        (put(0, b"X"), "not a container"),
        (lambda raw: raw[:80], "not a container"),
        (put(8, b"\x02"), "another kind or suite"),
        (put(9, b"\x02"), "another kind or suite"),
        (put(11, b"\x01"), "another kind or suite"),
        (put(10, b"\x00"), "number of recipients"),
        (put(10, b"\x05"), "number of recipients"),
        (put(12, struct.pack(">I", 4097)), "no size class"),
        (put(12, struct.pack(">I", 2048)), "no size class"),
        (put(12, struct.pack(">I", 9 << 25)), "no size class"),
        (put(12, struct.pack(">I", 4608)), "longer or shorter than it says"),
        (lambda raw: raw + b"x", "longer or shorter than it says"),
        (put(16, bytes(32)), "another realm, register or epoch"),
        (put(72, bytes(8)), "does not open"),
        (put(72, b"\x01"), "another term or number"),
        (put(80, b"\x01"), "another term or number"),
        (put(88 + 1184 + 200, b"flip"), "does not open"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "does not open"),
    ],
)
def test_a_container_that_was_spoiled_before_it_was_named_is_refused(
    twist: Callable[[bytes], bytes], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    w.pack(1, [b"first"], twist=twist)
    rows = {
        b".": writing.Row(writing.FOLDER),
        b"f": writing.Row(writing.FILE, 5, [(1 << 20, 1)], w.digest(b"first")),
    }
    w.snapshot({b"": rows})
    code, _, told = restore()
    assert (code, said in told) == (7, True), told


def test_a_manifest_of_another_commit_is_refused(story: Story, restore: Any) -> None:
    story.w.commit(story.manifest, full=True)
    code, _, said = restore()
    assert (code, "another term or number" in said) == (7, True), said


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda raw: raw.replace(b"\n\n", b"\n"), "is not a note"),
        (lambda raw: raw[:-1], "is not a note"),
        (lambda raw: b"exclave/other/v1" + raw[17:], "another type"),
        (lambda raw: raw.replace(b'"sequence":2', b'"sequence":4'), "under another's name"),
        (lambda raw: raw.replace(b'"term":3', b'"term":4'), "under another's name"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps":0.0'), "not an integer"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps": 0'), "not spelled canonically"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps":-1'), "no good 'gaps'"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps":true'), "no good 'gaps'"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps":NaN'), "not an integer"),
        (lambda raw: raw.replace(b'"0e0e', b'"0E0e'), "no good 'epoch'"),
        (lambda raw: raw.replace(b'"gaps":0', b'"gaps"'), "cannot be read"),
        (lambda raw: raw.replace(b"\n\n", b"\nmore\n\n"), "is not a note"),
        (lambda raw: raw.replace(b"4d4d", b"4e4e"), "does not follow"),
    ],
)
def test_a_commit_that_is_not_one_is_refused(
    spoil: Callable[[bytes], bytes], said: str, story: Story, restore: Any, tmp_path: Path
) -> None:
    story.change()
    path = objects(tmp_path, "commit")[1]
    path.write_bytes(spoil(path.read_bytes()))
    code, _, told = restore()
    assert (code, said in told) == (7, True), told


def test_a_chain_must_begin_and_must_not_leap(writing: ModuleType, w: Any, restore: Any) -> None:
    w.previous = "11" * 32
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER)}})
    code, _, said = restore()
    assert (code, "names one before it" in said) == (7, True), said
    w.sequence = 4
    w.snapshot({})
    code, _, said = restore()
    assert (code, "does not follow" in said) == (7, True), said


def test_a_charter_of_another_realm_or_register_is_refused(
    story: Story, restore: Any, tmp_path: Path
) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.write_bytes(story.w.charter())
    other.write_bytes(story.w.charter().replace(b"4d4d", b"4e4e"))
    assert "name no writer of epoch" in restore(f"--charter={other}")[2]
    assert restore(f"--charter={own}", f"--charter={other}")[0] == 0
    shutil.rmtree(tmp_path / "out")
    other.write_bytes(story.w.charter().replace(b"0e0e", b"0f0f"))
    assert "name no writer of epoch" in restore(f"--charter={other}")[2]


def test_a_register_that_is_not_there_is_said(story: Story, restore: Any) -> None:
    assert "no commit of register" in restore(register="00" * 16)[2]
    assert restore(register="../" * 4)[0] == 2
    assert restore("--sequence", "9")[0] == 2


BOMBS: dict[str, Callable[[Any, Any], None]] = {
    "frames": lambda w, _: w.pack(1, [b"first"], frames=0xFFFFFFFF),
    "slots": lambda w, _: w.pack(1, [b"first"], slots=0xFFFFFFFF),
    "table": lambda w, _: w.pack(1, [b"first"], table=0xFFFFFFF0),
    "stored": lambda w, _: w.pack(1, [b"first"], stored=0xFFFFFFF0),
    "frame": lambda w, _: w.pack(1, [b"first"], raw=0xFFFFFFF0),
    "big frame": lambda w, _: w.pack(1, [bytes(65 << 20)]),
    "slots do not fill": lambda w, _: w.pack(1, [b"first"], raw=4000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_pack_is_refused_at_once(bomb: str, writing: ModuleType, w: Any, restore: Any) -> None:
    BOMBS[bomb](w, writing)
    rows = {
        b".": writing.Row(writing.FOLDER),
        b"f": writing.Row(writing.FILE, 5, [(1 << 20, 1)], w.digest(b"first")),
    }
    w.snapshot({b"": rows})
    started = time.process_time()
    code, _, said = restore()
    assert code == 7, said
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"size": 1 << 50, "runs": [(1 << 20, 1)], "page": 512}, "was added and not given"),
        ({"size": 1 << 60, "runs": [], "page": 512, "patched": True}, "nothing to stand on"),
        ({"size": 8, "runs": [(1 << 20, 1 << 40)]}, "leaves its pack"),
        ({"size": 1 << 50, "runs": [(1 << 20, 1)]}, "free"),
        ({"size": 8, "runs": [(1 << 20, 2)]}, "beyond its pack"),
        ({"size": 8, "runs": [(7 << 20, 1)]}, "in no commit"),
        ({"size": 8, "runs": [(1 << 20, 1)]}, "not wholly|digest"),
        ({"size": 8, "runs": [(1 << 20, 1)], "at": [3]}, "does not begin"),
        ({"size": 8, "runs": [(1 << 20, 1), (1 << 20, 1)], "at": [0, 9]}, "out of order"),
        ({"size": 1 << 40, "extra": {"holes": [[5, 1 << 41]]}}, "sparse"),
    ],
)
def test_a_bomb_in_a_manifest_is_refused_at_once(
    row: dict[str, Any], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    w.pack(1, [b"first"])
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"f": writing.Row(writing.FILE, **row)}})
    started = time.process_time()
    code, _, told = restore()
    assert code in {2, 7}
    assert any(part in told for part in said.split("|")), told
    assert time.process_time() - started < 2


def test_a_long_chain_and_a_wrong_depth_are_refused(writing: ModuleType, w: Any, restore: Any) -> None:
    top = {b"": {b".": writing.Row(writing.FOLDER)}}
    first = w.snapshot(top)
    w.snapshot({}, parents=first, depth=2)
    assert restore()[0] == 7
    w.snapshot({}, parents=first, depth=33)
    assert restore()[0] == 7


@pytest.mark.parametrize("why", ["spaced", "doubled", "float", "great"])
def test_a_document_has_one_spelling(why: str, reader: ModuleType) -> None:
    raw = {
        "spaced": b'{"a": 1}',
        "doubled": b'{"a":1,"a":1}',
        "float": b'{"a":1.0}',
        "great": b'{"a":9007199254740992}',
    }
    assert reader.parse(b'{"a":[1,{"b":"\\u00e9"}]}', {}) == {"a": [1, {"b": "\u00e9"}]}
    with pytest.raises(reader.CheckError):
        reader.parse(raw[why], {})


def test_a_size_in_a_zstd_header_is_not_believed(reader: ModuleType) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(reader.CheckError):
            reader.inflate(memoryview(bomb), 100)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_object_that_grew_is_refused_before_it_is_read(story: Story, restore: Any, tmp_path: Path) -> None:
    for kind, said in (("pack", "instead of"), ("manifest", "instead of"), ("commit", "bytes")):
        path = objects(tmp_path, kind)[0]
        whole = path.read_bytes()
        os.truncate(path, 1 << 40)  # a hole; nobody has that much memory
        code, _, told = restore()
        assert (code, str(1 << 40) in told, said in told) == (7, True, True), told
        path.write_bytes(whole)


def test_a_signature_line_has_one_form(story: Story, restore: Any, tmp_path: Path) -> None:
    own, commit = tmp_path / "own", objects(tmp_path, "commit")[0]
    own.write_bytes(story.w.charter())
    whole = commit.read_bytes()
    for other in ("- home", "\u2014 ", "\u2014 home home"):
        commit.write_bytes(whole.replace("\u2014 home".encode(), other.encode(), 1))
        assert "broken signature line" in restore(f"--charter={own}")[2]


def test_the_store_keeps_its_own_names(story: Story, tmp_path: Path) -> None:
    """The writer here names by SHA-256 too; else the tests above would be of another store."""
    for path in objects(tmp_path, "pack") + objects(tmp_path, "manifest"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert struct.unpack_from(">8s", path.read_bytes())[0] == b"exclave\x01"


def test_a_term_never_falls_along_the_chain(w: Any, writing: ModuleType, restore: Any) -> None:
    for w.term in (3, 2, 3):
        w.snapshot({b"": {b".": writing.Row(writing.FOLDER)}})
    code, _, said = restore()
    assert (code, "does not follow" in said) == (7, True), said


def test_the_first_charter_is_its_own_realm(story: Story, reader: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "charter"
    path.write_bytes(story.w.charter().replace(b"4d" * 32, b"0" * 64))
    text = path.read_bytes().rpartition(b"\n\n")[0] + b"\n"
    ((realm, register, epoch),) = reader.load_charters([path])
    assert (realm, register, epoch) == (hashlib.sha256(text).hexdigest(), story.w.register, story.w.epoch)


def change(kind: str, **fields: Any) -> Callable[[list[bytes]], list[bytes]]:
    """Other words in the document of each record of this kind."""

    def spoil(records: list[bytes]) -> list[bytes]:
        changed = []
        for raw in records:
            end = 4 + struct.unpack_from(">I", raw)[0]
            document = json.loads(raw[4:end])
            if document["record"] == kind:
                document |= fields
            spelled = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
            changed.append(struct.pack(">I", len(spelled)) + spelled + raw[end:])
        return changed

    return spoil


def swap(old: bytes, new: bytes) -> Callable[[list[bytes]], list[bytes]]:
    return lambda records: [raw.replace(old, new) for raw in records]


def contradict(**fields: Any) -> Callable[[list[bytes]], list[bytes]]:
    """The top folder's second record says something else than its first."""
    return lambda records: [*records[:2], *change("folder", **fields)(records[2:])]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda records: [raw + b"x" for raw in records], "longer or shorter than its columns"),
        (lambda records: [struct.pack(">I", len(raw)) + raw[4:] for raw in records], "goes beyond it"),
        (lambda records: [records[-1], *records], "follows the head"),
        (lambda records: records[:-1], "does not end in its head"),
        (lambda records: [*records[:-2], records[-1]], "own root|its digest"),
        (lambda records: [records[0], records[2], records[1], records[3]], "not sorted"),
        (change("head", record="heap"), "no good 'record'"),
        (change("head", version=2), "no good 'version'"),
        (change("head", root="00" * 32), "own root"),
        (change("head", gone=["eA=="]), "a folder went"),
        (change("head", sequence=7), "not the one of its commit"),
        (change("head", depth=1), "another depth"),
        (change("folder", digest="00" * 32), "does not have its digest"),
        (change("folder", removed=["eA=="]), "an entry went"),
        (change("folder", extras={"1": {}}), "belongs to no row"),
        (change("folder", extras=[]), "no good 'extras'"),
        (contradict(digest="00" * 32), "contradicts its first"),
        (contradict(removed=["Lg=="]), "contradicts its first"),
        (swap(b"f\0", b"\0f"), "not as many"),
        (swap(b"f\0", b"\0\0"), "not as many"),
        (swap(struct.pack("<q", 1) + struct.pack("<q", 1 << 20), struct.pack("<2q", 0, 1 << 20)), "no row"),
        (swap(struct.pack("<q", 1) + struct.pack("<q", 1 << 20), struct.pack("<2q", -1, 1 << 20)), "no row"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(
    spoil: Callable[[list[bytes]], list[bytes]], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    row = writing.Row(writing.FILE, 5, [(w.pack(1, [b"first"]), 1)], w.digest(b"first"))
    w.spoil = spoil
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"f": row}})
    code, _, told = restore()
    assert code == 7
    assert any(part in told for part in said.split("|")), told


def test_a_pack_must_be_in_a_commit_and_have_one_number(writing: ModuleType, w: Any, restore: Any) -> None:
    row = writing.Row(writing.FILE, 5, [(w.pack(1, [b"first"]), 1)], w.digest(b"first"))
    top = {b"": {b".": writing.Row(writing.FOLDER), b"f": row}}
    sealed = list(w.packs)
    w.spoil = lambda records: (w.packs.clear(), records)[1]
    w.snapshot(top)
    assert "in no commit" in restore()[2]
    w.spoil, w.packs = list, [*sealed, (1, "ab" * 32, 5)]
    w.snapshot(top)
    assert "two packs have one number" in restore()[2]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"mode": -1}, "impossible"),
        ({"size": -1}, "impossible"),
        ({"size": 5, "page": 2 << 20}, "impossible"),
        ({"size": 5, "page": -1}, "impossible"),
        ({"size": 5, "patched": 2}, "impossible"),
        ({"size": 5, "runs": [(-5, 1)]}, "leaves its pack"),
        ({"size": 5, "runs": [(1 << 20, 0)]}, "leaves its pack"),
        ({"size": 5, "extra": {"twin": "bm9ib2R5"}}, "not there"),
        ({"size": 9, "extra": {"holes": [[5, 2], [4, 1]]}}, "sparse"),
        ({"size": 9, "extra": {"holes": [[5, -2]]}}, "sparse"),
        ({"size": 9, "extra": {"holes": [[5, 5]]}}, "sparse"),
    ],
)
def test_an_impossible_row_is_refused(
    row: dict[str, Any], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    w.pack(1, [b"first"])
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"f": writing.Row(**{"mode": writing.FILE} | row)}})
    code, _, told = restore()
    assert (code, said in told) == (7, True), told


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"size": 2048, "runs": [(1 << 20, 2), (1 << 20, 1)], "at": [1, 2]}, "overlap"),
        ({"size": 2048, "runs": [(1 << 20, 2)], "at": [3]}, "beyond the file"),
        ({"size": 4096, "runs": [(1 << 20, 1)], "at": [5]}, "added and not given"),
        ({"size": 4096, "runs": [(1 << 20, 1)], "at": [7]}, "added and not given"),
        ({"size": 2048, "page": 1024}, "nothing to stand on"),
        ({"size": 2048, "page": 0}, "nothing to stand on"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(
    patch: dict[str, Any], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    first = w.pack(1, [bytes(512)] * 4)
    file = writing.Row(writing.FILE, 2048, [(first, 4)], w.digest(bytes(2048)), page=512)
    parts = w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"f": file}})
    row = writing.Row(**{"mode": writing.FILE, "page": 512, "patched": True} | patch)
    w.snapshot({b"": {b"f": row}}, parents=parts, depth=1)
    code, _, told = restore()
    assert (code, said in told) == (7, True), told


def test_a_manifest_stands_on_an_older_one_of_the_right_depth(
    writing: ModuleType, w: Any, restore: Any
) -> None:
    top = {b"": {b".": writing.Row(writing.FOLDER)}}
    first = w.snapshot(top)
    w.snapshot({}, parents=first, depth=2)
    assert "of another depth" in restore()[2]
    w.sequence, w.previous = 1, "0" * 64
    for path in (w.root / f"r/{w.register}/commit/00000003").iterdir():
        path.unlink()
    w.snapshot({}, parents=first, depth=1)
    assert "of another depth" in restore()[2], "it stands on one of its own number"


def test_a_path_has_one_spelling(writing: ModuleType, w: Any, restore: Any) -> None:
    top = {b".": writing.Row(writing.FOLDER), b"x": writing.Row(writing.FOLDER)}
    w.snapshot({b"": top, b"x": {}, b"/x": {b"f": writing.Row(writing.FILE)}})
    assert "hangs in no other" in restore()[2]


def test_a_folder_without_a_place_and_a_tree_without_a_top_are_refused(
    writing: ModuleType, w: Any, restore: Any
) -> None:
    w.snapshot({})
    assert "own root" in restore()[2]
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER)}, b"lost": {}})
    code, _, said = restore()
    assert (code, "hangs in no other" in said) == (7, True), said


def test_content_that_is_short_of_its_size_is_refused(writing: ModuleType, w: Any, restore: Any) -> None:
    row = writing.Row(writing.FILE, 8, [(w.pack(1, [b"first"]), 1)], w.digest(b"first"))
    w.snapshot({b"": {b".": writing.Row(writing.FOLDER), b"f": row}})
    code, _, said = restore()
    assert (code, "not wholly" in said) == (7, True), said


def contents(
    *frames: tuple[int, ...], lengths: tuple[int, ...], padding: bytes = b"", more: bytes = b""
) -> bytes:
    """A container's plaintext with five bytes of data and this table of contents."""
    table = struct.pack("<II", len(frames), len(lengths))
    table += b"".join(struct.pack(f"<{len(frames)}I", *column) for column in zip(*frames, strict=True))
    table += struct.pack(f"<{len(lengths)}I", *lengths) + more
    small = zstandard.ZstdCompressor().compress(table) if len(table) > 1 << 20 else table
    plain = b"first" + padding
    return plain + bytes(4096 - len(plain)) + small + struct.pack(">II", len(small), len(table))


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (contents((0, 5, 5, 1), lengths=(9, 5)), "first slots"),
        (contents((0, 3, 3, 0), (2, 2, 2, 1), lengths=(3, 2)), "out of bounds"),
        (contents((0, 5000, 5000, 0), lengths=(5000,)), "out of bounds"),
        (contents((0, 5, 65 << 20, 0), lengths=(65 << 20,)), "out of bounds"),
        (contents((0, 2, 2, 0), (2, 3, 3, 9), lengths=(2, 3)), "out of bounds"),
        (contents((0, 5, 5, 0), lengths=(4,)), "do not fill"),
        (contents((0, 5, 5, 0), lengths=(5,), more=bytes(4)), "counts"),
        (contents((0, 5, 5, 0), lengths=(5,), more=bytes(22 << 20)), "bounds"),
        (contents((0, 5, 5, 0), lengths=(5,), padding=b"hidden"), "padding"),
        (contents(*[(0, 0, 0, 0)] * ((1 << 20) + 1), lengths=()), "counts"),
        (struct.pack(">4090xIH", 4096, 0) + struct.pack(">I", 8), "bounds"),
    ],
)
def test_a_table_of_contents_holds_together(plain: bytes, said: str, reader: ModuleType) -> None:
    good = reader.Slots(contents((0, 2, 2, 0), (2, 3, 3, 1), lengths=(2, 3)))
    assert [bytes(piece) for piece in good.read(0, 2)] == [b"fi", b"rst"]
    with pytest.raises(reader.CheckError, match=said):
        reader.Slots(plain)


def test_a_frame_is_as_long_as_its_table_says(reader: ModuleType) -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    assert reader.inflate(memoryview(frame), 1000) == bytes(1000)
    for stored, size in ((frame, 999), (frame, 1001), (b"no frame", 1000)):
        with pytest.raises(reader.CheckError):
            reader.inflate(memoryview(stored), size)


def cluster(
    writing: ModuleType, w: Any, *, wal: bytes = b"segment", oids: bytes = b"", link: bytes = b""
) -> None:
    """A base backup as far as the reader looks at it."""

    def file(number: int, content: bytes) -> Any:
        chunks = [content[at : at + (1 << 20)] for at in range(0, len(content), 1 << 20)]
        return writing.Row(
            writing.FILE, len(content), [(w.pack(number, chunks), len(chunks))], w.digest(*chunks)
        )

    folder = writing.Row(writing.FOLDER)
    top = {b".": folder, b"pg_wal": folder, b"pg_tblspc": folder, b"PG_VERSION": file(1, b"17\n")}
    top[b"postgresql.auto.conf"] = file(2, b"archive_command = 'home only'\n")
    if oids:
        top[b"tablespace_map"] = file(3, oids)
    if link:
        top[link] = writing.Row(writing.LINK, extra={"target": writing.b64(b"/nowhere")})
    folders = {b"": top, b"pg_wal": {b"0" * 24: file(4, wal)}, b"pg_tblspc": {b"16384": folder}}
    folders |= {b"pg_tblspc/16384": {}}
    w.snapshot(folders, kind="postgres", environment={"wal_segment_bytes": 1 << 20})


def test_a_cluster_is_made_ready_to_recover(writing: ModuleType, w: Any, restore: Any) -> None:
    cluster(writing, w, oids=b"16384 /srv/only\n")
    code, out, said = restore()
    assert code == 0, said
    assert "PostgreSQL 17" in said
    assert (out / "pg_wal" / ("0" * 24)).read_bytes() == b"segment" + bytes((1 << 20) - 7)
    assert (out / "pg_wal/archive_status").is_dir()
    assert (out / "recovery.signal").read_bytes() == b""
    assert not (out / "postgresql.auto.conf").exists(), "home's settings are not for here"
    spaces, start = Path(f"{out}-tablespaces"), Path(f"{out}-start")
    assert os.readlink(out / "pg_tblspc/16384") == str(spaces / "16384")
    assert (out / "tablespace_map").read_text() == f"16384 {spaces}/16384\n"
    assert "restore_command = 'false'" in (start / "postgresql.conf").read_text()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"wal": bytes((1 << 20) + 1)}, "WAL segment is longer"),
        ({"oids": b"../x /home\n"}, "tablespace map"),
        ({"link": b"tablespace_map"}, "links for folders"),
    ],
)
def test_a_cluster_that_leads_elsewhere_is_refused(
    how: dict[str, bytes], said: str, writing: ModuleType, w: Any, restore: Any
) -> None:
    cluster(writing, w, **how)
    code, _, told = restore()
    assert (code, said in told) == (7, True), told
