"""The stand-alone reader restores what a second writer, made from the specification, wrote; and refuses the rest."""

from __future__ import annotations

import hashlib
import os
import random
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
            b"empty": row(writing.FILE),
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
    assert restore()[0] == 7
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


@pytest.mark.parametrize(
    "extra", [{"target": "bm8AbmU="}, {"target": 3}, {"target": "not base64"}, {"target": "YQ"}]
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
    assert "belongs to another realm than the charter" in restore(f"--charter={other}")[2]
    assert "belong to different realms" in restore(f"--charter={own}", f"--charter={other}")[2]
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
        ({"size": 1 << 50, "runs": [(1 << 20, 1)], "page": 512}, "another number of pages"),
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
    assert reader.parse(b'{"a":[1,{"b":"\\u00e9"}]}') == {"a": [1, {"b": "\u00e9"}]}
    with pytest.raises(reader.CheckError):
        reader.parse(raw[why])


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
    commit.write_bytes(commit.read_bytes().replace("\u2014 home".encode(), b"- home", 1))
    assert "broken signature line" in restore(f"--charter={own}")[2]


def test_the_store_keeps_its_own_names(story: Story, tmp_path: Path) -> None:
    """The writer here names by SHA-256 too; else the tests above would be of another store."""
    for path in objects(tmp_path, "pack") + objects(tmp_path, "manifest"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
        assert struct.unpack_from(">8s", path.read_bytes())[0] == b"exclave\x01"
