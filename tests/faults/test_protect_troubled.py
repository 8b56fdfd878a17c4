"""`protect` in trouble: dark, full, forbidden, slow and lying embassies, a home without disk or memory, a wrong clock.

Every time: either a clear error or a snapshot whose holders are told truly; never a traceback, never a wrong snapshot;
and the next run completes, whatever was left behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from exclave import homedisk
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.errors import Busy, ExclaveError, Misconfigured, Unreachable
from exclave.flows.catching_up import catch_up
from exclave.flows.verification import Problem
from exclave.flows.verify import verify
from exclave.registers.base import Register
from exclave.registers.files.register import FilesRegister
from exclave.registers.memory import MemoryRegister
from exclave.registers.sqlite.rebuilding import SqliteRebuilder
from exclave.registers.sqlite.register import SqliteRegister
from exclave.sealed.commits import Pack
from exclave.session import Pending, Session
from exclave.stores.directory import DirectoryStore
from exclave.stores.memory import MemoryStore
from exclave.stores.object_store import ObjectStore
from exclave.stores.retrying import Retrying
from exclave.testing import dying_home
from exclave.testing.seaweed import Seaweed
from exclave.testing.stores import Interfering, Liar, Troubled
from exclave.testing.world import Silent, World
from exclave.types import Buffer, ObjectId

KINDS = ["files", "sqlite"]
DEED_BYTES = 900


class Source:
    """A register that a test changes and compares with what comes back."""

    def __init__(self, kind: str, path: Path, *, mb: int) -> None:
        self.kind, self.path = kind, path
        self.wanted: list[str] = []  # the state at each snapshot, oldest first
        self._rnd = random.Random(f"{kind}{path.name}")
        if kind == "files":
            for number in range(30):
                file = path / f"d{number % 4}" / f"f{number}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self._rnd.randbytes(15_000))
            (path / "big").write_bytes(self._rnd.randbytes(mb << 20))
        else:
            self._execute("pragma journal_mode=wal", "create table deed(id integer primary key, body blob)")
            connection = sqlite3.connect(path)
            rows = ((self._rnd.randbytes(DEED_BYTES),) for _ in range((mb << 20) // DEED_BYTES))
            with connection:
                connection.executemany("insert into deed(body) values (?)", rows)
            connection.close()

    @property
    def register(self) -> Register:
        return FilesRegister(self.path) if self.kind == "files" else SqliteRegister(self.path)

    def change(self) -> None:
        """A little here and there."""
        if self.kind == "sqlite":
            body = self._rnd.randbytes(DEED_BYTES).hex()
            self._execute(*(f"update deed set body=x'{body}' where id={100 * n + 1}" for n in range(30)))
            return
        (self.path / f"d{self._rnd.randrange(4)}" / f"n{self._rnd.randrange(20)}").write_bytes(
            self._rnd.randbytes(self._rnd.randrange(90_000))
        )
        with (self.path / "big").open("r+b") as file:
            file.seek(self._rnd.randrange(1 << 19))
            file.write(self._rnd.randbytes(300_000))

    def state(self, place: Path | None = None) -> str:
        """A digest of all the content, here or where it was restored."""
        if self.kind == "files":
            return _tree(place or self.path)
        if place is not None:
            SqliteRebuilder().finish(place, {})
        connection = sqlite3.connect(place / self.path.name if place else self.path)
        try:
            rows = connection.execute("select id, body from deed order by id").fetchall()
        finally:
            connection.close()
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def snapshot(self) -> None:
        """The state now is what the snapshot just made must give back."""
        self.wanted.append(self.state())

    def check(self, world: World, *embassies: Embassy) -> None:
        """Every snapshot comes back as it was, from each of these embassies alone (or from all)."""
        for sites in [[one] for one in embassies] or [list(world.embassies)]:
            assert [commit.sequence for commit in world.commits(sites)] == list(
                range(1, len(self.wanted) + 1)
            )
            for sequence, state in enumerate(self.wanted, 1):
                place = world.folder / "restored"
                world.restore(place, sequence=sequence, embassies=sites)
                assert self.state(place) == state, f"snapshot {sequence} from {sites[0].name}"
                shutil.rmtree(place)

    def _execute(self, *statements: str) -> None:
        connection = sqlite3.connect(self.path)
        with connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()


def _tree(place: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(place)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _source(kind: str, folder: Path, *, mb: int = 18) -> Source:
    folder.mkdir(exist_ok=True)
    return Source(kind, folder / ("source" if kind == "files" else "deeds.db"), mb=mb)


def _directory(folder: Path, name: str) -> Embassy:
    DirectoryStore.prepare(folder / name)
    return Embassy(name, DirectoryStore(folder / name))


def _bucket(weed: Seaweed, name: str) -> Embassy:
    store = ObjectStore(
        f"s3://{name}/site",
        credentials_file=weed.credentials_file(),
        endpoint=weed.endpoint,
        request_seconds=10,
    )
    return Embassy(name, Retrying(store, attempts=3, first_seconds=0.1, patience_seconds=1))


def _awake(site: Embassy, scratch: Embassy) -> None:
    """Wait until a server that just started takes objects and gives back those that it has."""
    Retrying(scratch.store, attempts=60).put(f"o/{os.urandom(8).hex()}", b"1")
    patient = Retrying(site.store, attempts=60)
    for row in patient.list(""):
        patient.get_range(row.name, 0, 1)


def _caught_up(world: World) -> dict[str, str]:
    """What `protect` does at its end, alone."""
    verifier = world.signer.verifier
    return catch_up(world.keys.register, verifier, world.embassies, Silent(), patience_seconds=60)


def _problems(world: World, embassies: list[Embassy]) -> list[Problem]:
    """What a verification finds; that this small world has no charter abroad is no news."""
    report = verify(embassies, [(world.keys.register, world.signer.verifier)], told=Silent())
    assert report.unreachable == {}
    return [problem for problem in report.problems if not problem.path.startswith("charter/")]


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    with Seaweed(tmp_path_factory.mktemp("weed")) as weed:
        yield weed


# ------------------------------------------------------------------------------------------ a server that dies


@pytest.mark.integration
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_dies_in_mid_put_and_comes_back(tmp_path: Path, kind: str, copies: int) -> None:
    _dying_bucket(tmp_path, kind, copies, deaths=[1])


@pytest.mark.long
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bucket_dies_at_every_put(tmp_path: Path, kind: str, copies: int) -> None:
    _dying_bucket(tmp_path, kind, copies, deaths=[0, 1, 2, 3, 4, 5])


def _dying_bucket(tmp_path: Path, kind: str, copies: int, deaths: list[int]) -> None:
    source = _source(kind, tmp_path)
    with Seaweed(tmp_path / "weed") as weed:
        weed.bucket("far")
        weed.bucket("scratch")
        near, far = _directory(tmp_path, "near"), _bucket(weed, "far")
        world = World(tmp_path, source.register, copies=copies, embassies=[near, far])
        for death in deaths:
            puts = 0

            def meddle(name: str, death: int = death) -> None:
                nonlocal puts
                puts += 1
                if puts == death + 1:
                    threading.Timer(0.02, weed.kill).start()  # in the middle of it

            source.change()
            dying = Embassy("far", Interfering(far.store, meddle))
            if copies == 2:
                with suppress(Unreachable):  # killed after the last put: it is all there
                    world.protect([near, dying])
                    source.snapshot()
                # A commit may be at one embassy: then it counts, with the state of now.
                if len(world.commits([near])) > len(source.wanted):
                    source.snapshot()
            else:
                done = world.protect([near, dying])
                assert done.holders | done.behind.keys() == {"near", "far"}
                if death <= 1 and not source.wanted:  # later ones may be over before it dies
                    assert done.behind.keys() == {"far"}
                source.snapshot()
            weed.kill()
            with pytest.raises(Unreachable):
                world.restore(tmp_path / "nothing", embassies=[far])
            weed.start()
            _awake(far, _bucket(weed, "scratch"))
            if copies == 1:  # from the other embassy: the source is not there
                source.path.rename(tmp_path / "away")
                assert _caught_up(world) == {}
                source.check(world, far)
                (tmp_path / "away").rename(source.path)
            done = world.protect(patience_seconds=60)
            assert done.holders == {"near", "far"}
            source.snapshot()
        source.check(world, near, far)
        assert _problems(world, [near, far]) == []


def test_a_dead_bucket_is_told_as_missing_copies(tmp_path: Path) -> None:
    register = MemoryRegister({b"a": b"1" * 99_999})
    dark = Troubled()
    world = World(
        tmp_path, register, copies=2, embassies=[Embassy("near", MemoryStore()), Embassy("far", dark)]
    )
    dark.fail_after_puts = 1
    with pytest.raises(Unreachable) as missing:
        world.protect()
    assert (missing.value.id, missing.value.exit_code) == ("copies-missing", 8)
    assert "far: " in missing.value.why
    assert missing.value.hint == "exclave doctor"


def test_catching_up_reads_nothing_at_the_source(tmp_path: Path) -> None:
    read: list[bytes] = []
    register = MemoryRegister({b"d/a": random.Random(1).randbytes(2_000_000), b"b": b"2"}, fault=read.append)
    dark = Troubled()
    embassies = [Embassy("near", MemoryStore()), Embassy("far", dark)]
    world = World(tmp_path, register, copies=1, embassies=embassies)
    dark.fail_after_puts = 1
    assert world.protect().behind.keys() == {"far"}
    dark.down = False
    dark.fail_after_puts = None
    read.clear()
    assert world.protect().behind == {}
    assert read == []
    world.restore(tmp_path / "out", embassies=embassies[1:])


# ------------------------------------------------------------------------------------------ no room


def _limited(folder: Path, **options: Any) -> dict[str, Any]:
    """What became of a run in a process with trouble of its own (see limited_home.py)."""
    command = [sys.executable, Path(__file__).with_name("limited_home.py"), folder, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    result: dict[str, Any] = json.loads(done.stdout)
    assert "bug" not in result, result["bug"]
    assert result["died"] == []
    return result


def _sites(tmp_path: Path, weed: Seaweed, *kinds: str) -> list[dict[str, str]]:
    sites = []
    for number, kind in enumerate(kinds):
        if kind == "s3":
            bucket = f"b{os.urandom(6).hex()}"
            weed.bucket(bucket)
            keys = str(weed.credentials_file())
            sites.append({"url": f"s3://{bucket}/site", "endpoint": weed.endpoint, "credentials_file": keys})
        else:
            sites.append({"directory": str(tmp_path / f"site{number}")})
    return sites


@pytest.mark.integration
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_embassy_without_room(tmp_path: Path, seaweed: Seaweed, kind: str, copies: int) -> None:
    source, home = _source(kind, tmp_path, mb=5), tmp_path / "home"
    sites = _sites(tmp_path, seaweed, "directory", "s3")
    world = dying_home.prepare(home, kind=kind, source=str(source.path), sites=sites, copies=copies)
    # Home's own small files are shorter than this, a pack is longer.
    result = _limited(home, phase="read and seal", bytes=3_000_000)
    if copies == 2:
        assert (result["error"], result["kind"]) == ("copies-missing", "Unreachable")
        assert "File too large" in result["text"]
    else:
        assert result["holders"] == ["site1"]
        assert "File too large" in result["behind"]["site0"]
        source.snapshot()
    result = _limited(home)
    assert result["holders"] == ["site0", "site1"]
    source.snapshot()
    source.check(world, *world.embassies)


@pytest.mark.integration
@pytest.mark.parametrize("phase", ["look at the embassies", "read and seal", "make it durable abroad"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_home_without_room_for_its_memory(tmp_path: Path, seaweed: Seaweed, kind: str, phase: str) -> None:
    if kind == "sqlite" and phase == "look at the embassies":
        phase = (
            "read and seal"  # the copy that SQLite makes needs room, too; see the SQLite register's own tests
        )
    source, home = _source(kind, tmp_path, mb=3), tmp_path / "home"
    sites = _sites(tmp_path, seaweed, "s3", "s3")
    world = dying_home.prepare(home, kind=kind, source=str(source.path), sites=sites)
    for _ in range(2):  # with nothing to remember, and with something
        result = _limited(home, phase=phase, bytes=0)
        assert result["kind"] == "Unreachable", result
        assert result["error"] in {"home-disk", "index-unusable"}
        assert "File too large" in result["text"]
        assert result["hint"]
        assert result["seconds"] < 30
        if len(world.commits()) > len(source.wanted):
            source.snapshot()  # it was published before home wanted to remember it
        result = _limited(home)
        assert result["holders"] == ["site0", "site1"]
        source.snapshot()
        source.check(world, *world.embassies)
        source.change()


def test_a_home_that_cannot_note_what_is_abroad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes are written in the embassies' threads: an error there must neither kill nor hang them."""

    def full(session: Session, epoch: str, pending: Pending) -> None:
        with homedisk.usable(tmp_path):
            raise OSError(errno.ENOSPC, "No space left on device")

    content = {b"f%d" % number: random.Random(number).randbytes(1 << 20) for number in range(60)}
    world = World(tmp_path, MemoryRegister(content), sites=2)
    died: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(Session, "note", full)
        patch.setattr(threading, "excepthook", died.append)
        with pytest.raises(Unreachable, match="No space left") as wrong:
            world.protect()
    assert (wrong.value.id, died) == ("home-disk", [])
    assert world.protect().sequence == 1
    world.restore(tmp_path / "out")


@pytest.mark.needs_root
@pytest.mark.parametrize("full", ["site", "state"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_is_really_full(tmp_path: Path, kind: str, full: str) -> None:
    source = _source(kind, tmp_path, mb=20)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", small], check=True)
    try:
        near, far = _directory(tmp_path, "near"), _directory(small, "far")
        folder = tmp_path
        if full == "state":
            far = _directory(tmp_path, "far")
            folder = small
        world = World(folder, source.register, copies=2, embassies=[near, far])
        if full == "state":
            (small / "ballast").write_bytes(bytes((12 << 20) - (1 << 13)))
        with pytest.raises(Unreachable) as wrong:
            world.protect(patience_seconds=2)
        assert "No space left on device" in str(wrong.value)
        assert wrong.value.id == {"site": "copies-missing", "state": wrong.value.id}[full]
        if len(world.commits([near])) > len(source.wanted):
            source.snapshot()
        (small / "ballast").unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,size=90m", small], check=True)
        assert world.protect().holders == {"near", "far"}
        source.snapshot()
        world.folder = tmp_path  # room to restore
        source.check(world, near, far)
    finally:
        subprocess.run(["umount", small], check=True)


# ------------------------------------------------------------------------------------------ permission lost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["site0", "home/state", "home/state/catalog", "home/state/index"])
def test_permission_lost(open_path: Path, ordinary_user: Any, kind: str, lost: str) -> None:
    # Once before, so that everything is imported: the interpreter may be out of an ordinary user's reach.
    first = _source(kind, open_path / "first", mb=1)
    warm = World(
        open_path / "first", first.register, embassies=[_directory(open_path, "first/site")], copies=1
    )
    warm.protect()
    first.snapshot()
    first.check(warm)
    with ordinary_user():
        source = _source(kind, open_path, mb=2)
        near, far = _directory(open_path, "site0"), _directory(open_path, "site1")
        (open_path / "home").mkdir()
        world = World(open_path / "home", source.register, copies=2, embassies=[near, far])
        world.protect()
        source.snapshot()
        source.change()
        (open_path / lost).chmod(0o500 if lost == "site0" else 0)
        for folder in (open_path / lost).rglob("*") if lost == "site0" else ():
            if folder.is_dir():
                folder.chmod(0o500)
        with pytest.raises(ExclaveError) as wrong:
            world.protect(patience_seconds=2)
        assert isinstance(wrong.value, Unreachable | Misconfigured)
        assert "ermission denied" in str(wrong.value)
        assert wrong.value.hint
        assert len(world.commits([far])) == len(source.wanted), "told before the work, not after it"
        if lost == "site0":
            world.copies = 1
            done = world.protect(patience_seconds=2)
            assert done.behind.keys() == {"site0"}
            source.snapshot()
        for folder in (open_path / lost, *(open_path / lost).rglob("*")):
            if folder.is_dir():
                folder.chmod(0o700)
        assert world.protect().holders == {"site0", "site1"}
        source.snapshot()
        source.check(world, near, far)


# ------------------------------------------------------------------------------------------ slow


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_embassy_costs_no_more_than_patience_and_no_memory(tmp_path: Path, kind: str) -> None:
    source, home = _source(kind, tmp_path, mb=100), tmp_path / "home"
    sites = [{"directory": str(tmp_path / f"site{number}")} for number in range(3)]
    world = dying_home.prepare(home, kind=kind, source=str(source.path), sites=sites)
    slow = _limited(home, slow=1, seconds=600, patience=1.5)
    assert slow["holders"] == ["site0", "site2"]
    assert "1.5 seconds" in slow["behind"]["site1"]
    source.snapshot()
    shutil.rmtree(home / "state")
    for site in sites:
        shutil.rmtree(site["directory"])
        Path(site["directory"]).mkdir()
    usual = _limited(home)
    assert usual["holders"] == ["site0", "site1", "site2"]
    assert slow["seconds"] < usual["seconds"] + 1.5 + 5  # its last put is waited for, at most that long
    assert slow["rss"] < usual["rss"] + (
        40 << 20
    )  # one spare buffer of a pack's size, and the stack of a thread
    source.check(world, *world.embassies)


# ------------------------------------------------------------------------------------------ lies


class Turning:
    """A store that keeps something else than it was given, where `wrong` says so."""

    def __init__(
        self, inner: MemoryStore, wrong: Callable[[str], bool], turn: Callable[[bytes], bytes]
    ) -> None:
        self.inner = inner
        self._wrong, self._turn = wrong, turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def put(self, name: str, data: Buffer) -> None:
        self.inner.put(name, self._turn(bytes(data)) if self._wrong(name) else data)


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 0x40
    return bytes(changed)


def _drop(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize("turn", [_flip, _drop])
@pytest.mark.parametrize("what", ["/pack/", "/manifest/", "/index/", "/commit/"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_embassy_that_keeps_other_bytes(
    tmp_path: Path, kind: str, what: str, turn: Callable[[bytes], bytes]
) -> None:
    source = _source(kind, tmp_path, mb=2)
    lying = Embassy("lying", Turning(MemoryStore(), lambda name: what in name, turn))
    honest = Embassy("honest", MemoryStore())
    world = World(tmp_path, source.register, copies=2, embassies=[lying, honest])
    world.protect()
    source.snapshot()
    assert any(what in row.name for row in honest.store.list(""))
    problems = _problems(world, [lying, honest])
    assert {problem.embassy for problem in problems} == {"lying"}
    assert any(what in problem.path for problem in problems)
    source.check(world)
    source.check(world, honest)
    source.change()
    with suppress(ExclaveError):  # it may be found out, or not: it must not spoil what is at the other one
        world.protect()
    world.copies = 1
    world.protect([honest])
    for commit in world.commits([honest])[1:]:
        source.wanted += [source.state()] * (commit.sequence - len(source.wanted))
    source.check(world, honest)


@pytest.mark.parametrize("kind", KINDS)
def test_an_embassy_that_keeps_nothing(tmp_path: Path, kind: str) -> None:
    source = _source(kind, tmp_path, mb=2)
    liar, honest = Embassy("liar", Liar("loses")), Embassy("honest", MemoryStore())
    world = World(tmp_path, source.register, copies=1, embassies=[liar, honest])
    for _ in range(2):
        world.protect()
        source.snapshot()
        source.change()
    source.check(world)
    assert inspect.history([liar, honest], world.keys.register, world.signer.verifier).heads == {
        "liar": 0,
        "honest": 2,
    }
    assert world.protect().behind.keys() == {"liar"}, "it was brought up to date, says so, and shows nothing"


# ------------------------------------------------------------------------------------------ new, at once, forgetful


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_locked_bucket_gets_everything(tmp_path: Path, seaweed: Seaweed, kind: str) -> None:
    source = _source(kind, tmp_path, mb=3)
    first = [_directory(tmp_path, "one"), _directory(tmp_path, "two")]
    world = World(tmp_path, source.register, copies=2, embassies=first)
    for _ in range(3):
        source.change()
        world.protect()
        source.snapshot()
    seaweed.bucket(f"new-{kind}", locked_days=1)
    added = _bucket(seaweed, f"new-{kind}")
    done = world.protect([*first, added])
    assert done.holders == {"one", "two", added.name}
    source.snapshot()
    source.change()
    world.protect([*first, added])
    source.snapshot()
    source.check(world, added)
    assert _problems(world, [added]) == []
    both = {row.name: row.size for row in first[0].store.list("")}
    assert {row.name: row.size for row in added.store.list("")} == both


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_two_locked_buckets_alone(tmp_path: Path, seaweed: Seaweed, kind: str) -> None:
    source = _source(kind, tmp_path, mb=3)
    for number in range(2):
        seaweed.bucket(f"locked{number}-{kind}", locked_days=1)
    sites = [_bucket(seaweed, f"locked{number}-{kind}") for number in range(2)]
    world = World(tmp_path, source.register, embassies=sites)
    for _ in range(2):
        assert world.protect().holders == {one.name for one in sites}
        source.snapshot()
        source.change()
    source.check(world, *sites)
    assert _problems(world, sites) == []


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_one_register_at_once(tmp_path: Path, kind: str) -> None:
    source = _source(kind, tmp_path, mb=2)
    begun = threading.Event()
    go_on = threading.Event()

    def wait(name: str) -> None:
        begun.set()
        go_on.wait(20)

    site = Embassy("slow", Interfering(MemoryStore(), wait))
    world = World(tmp_path, source.register, copies=1, embassies=[site])
    first = threading.Thread(target=world.protect)
    first.start()
    try:
        assert begun.wait(20)
        with pytest.raises(Busy) as busy:
            world.protect()
        assert (busy.value.id, busy.value.exit_code) == ("already-running", 6)
    finally:
        go_on.set()
        first.join()
    assert [commit.sequence for commit in world.commits()] == [1]
    assert world.protect().sequence == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_home_that_forgot_everything(tmp_path: Path, kind: str) -> None:
    source = _source(kind, tmp_path, mb=2)
    world = World(tmp_path, source.register)
    for _ in range(3):
        done = world.protect()
        source.snapshot()
        source.change()
        shutil.rmtree(tmp_path / "state")
    assert done.full
    assert done.new_bytes < 1_500_000, "what is abroad is known from the index parts there"
    source.check(world)


@pytest.mark.parametrize("kind", KINDS)
def test_a_byte_of_homes_memory_is_flipped(tmp_path: Path, kind: str) -> None:
    _flipped(tmp_path, kind, places=2)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_bytes_of_homes_memory_are_flipped(tmp_path: Path, kind: str) -> None:
    _flipped(tmp_path, kind, places=60)


def _flipped(tmp_path: Path, kind: str, places: int) -> None:
    """One bit at a time in each file; then a snapshot is made, and it and the one after are right."""
    source = _source(kind, tmp_path, mb=1)
    world = World(tmp_path, source.register, sites=2)
    world.protect()
    source.snapshot()
    source.change()
    world.protect()
    source.snapshot()
    packs = world.commits()[-1].packs
    noted = Pending(Pack(ObjectId("ab" * 32), packs[-1].number + 7, 999), os.urandom(160))
    Session(tmp_path / "state" / "session").note(world.keys.epoch, noted)
    shutil.copytree(tmp_path / "state", tmp_path / "sound")
    held = dict(_objects(world))
    rnd = random.Random(7)
    files = [
        path.relative_to(tmp_path / "sound") for path in (tmp_path / "sound").rglob("*") if path.is_file()
    ]
    names = {file.name.split("-")[0] for file in files}
    assert names >= {"head.json", "tree", "session", "lock"}, names
    assert any(file.suffix == ".run" for file in files)
    source.change()
    state = source.state()
    for file in files:
        sound = (tmp_path / "sound" / file).read_bytes()
        chosen = set(rnd.sample(range(len(sound)), min(len(sound), places)))
        if file.name == "head.json":  # a digit more or less is still JSON, and would be believed
            digits = [found.end() - 1 for found in re.finditer(rb'": \[*"?[0-9a-f]', sound)]
            chosen |= set(rnd.sample(digits, min(len(digits), 2 * places)))
        for at in sorted(chosen):
            shutil.rmtree(tmp_path / "state")
            shutil.copytree(tmp_path / "sound", tmp_path / "state")
            damaged = bytearray(sound)
            damaged[at] ^= 1 if file.name == "head.json" else 1 << rnd.randrange(8)
            (tmp_path / "state" / file).write_bytes(damaged)
            again = World(tmp_path, source.register, embassies=[_copy(held), _copy(held, "other")])
            again.keys, again.seed, again.signer = world.keys, world.seed, world.signer
            told = f"{file} at {at}"
            assert again.protect().sequence == 3, told
            assert again.protect().sequence == 4, told
            for sequence in (3, 4):
                again.restore(tmp_path / "restored", sequence=sequence)
                assert source.state(tmp_path / "restored") == state, f"{told}, snapshot {sequence}"
                shutil.rmtree(tmp_path / "restored")


def _objects(world: World) -> Iterator[tuple[str, bytes]]:
    store = world.embassies[0].store
    for row in store.list(""):
        yield row.name, store.get(row.name, limit=row.size)


def _copy(held: dict[str, bytes], name: str = "one") -> Embassy:
    store = MemoryStore()
    for path, data in held.items():
        store.put(path, data)
    return Embassy(name, store)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_is_set_back(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source(kind, tmp_path, mb=2)
    world = World(tmp_path, source.register)
    now, real = time.time_ns(), time.time_ns
    for set_back_seconds in (0, 86_400, 30):
        monkeypatch.setattr(time, "time_ns", lambda ago=set_back_seconds: real() - ago * 10**9)
        source.change()
        world.protect()
        source.snapshot()
    at = [commit.at for commit in world.commits()]
    assert at[1] < at[0]
    assert at[1] < now
    source.check(world)
