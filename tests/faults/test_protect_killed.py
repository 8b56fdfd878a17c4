"""SIGKILL anywhere in `protect`: the next run completes, earlier snapshots restore, nothing else counts as one."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exclave.registers.sqlite.rebuilding import SqliteRebuilder
from exclave.testing import dying_home
from exclave.testing.postgres import cluster
from exclave.testing.seaweed import Seaweed
from exclave.testing.world import World


class Campaign:
    """One home, killed again and again; remembers what each snapshot must give back."""

    def __init__(
        self, folder: Path, world: World, change: Callable[[random.Random], None], state: Callable[[], str]
    ):
        self.folder = folder
        self.world = world
        self._change = change
        self._state = state
        self.wanted: dict[int, str] = {}

    def run(self, rnd: random.Random, boundary: str = "", kill_after_seconds: float = -1) -> dying_home.Ended:
        """Change the source, protect it until killed, look at what became of it."""
        self._change(rnd)
        process = dying_home.start(self.folder, boundary)
        if kill_after_seconds >= 0:
            time.sleep(kill_after_seconds)
            process.kill()
        end = dying_home.ended(process)
        self._note()
        return end

    def _note(self) -> None:
        state = self._state()
        for commit in self.world.commits():
            self.wanted.setdefault(commit.sequence, state)

    def check(self, read: Callable[[Path], str], sequences: list[int]) -> None:
        """These snapshots give back what the source had then."""
        for sequence in sequences:
            place = self.folder / "restored"
            shutil.rmtree(place, ignore_errors=True)
            self.world.restore(place, sequence=sequence)
            assert read(place) == self.wanted[sequence], f"snapshot {sequence}"
            shutil.rmtree(place)


def _tree_state(place: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(place.rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(place)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _tree(tmp_path: Path, sites: list[dict[str, str]]) -> tuple[Campaign, Callable[[Path], str]]:
    source = tmp_path / "source"
    for number in range(40):
        path = source / f"d{number % 5}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(number).randbytes(20_000))
    (source / "big").write_bytes(random.Random(99).randbytes(20_000_000))  # more than one pack

    def change(rnd: random.Random) -> None:
        (source / f"d{rnd.randrange(5)}" / f"n{rnd.randrange(30)}").write_bytes(
            rnd.randbytes(rnd.randrange(99_000))
        )
        with (source / "big").open("r+b") as file:
            file.seek(rnd.randrange(19_000_000))
            file.write(rnd.randbytes(500_000))

    world = dying_home.prepare(tmp_path / "home", kind="files", source=str(source), sites=sites)
    return Campaign(tmp_path / "home", world, change, lambda: _tree_state(source)), _tree_state


def _rows(path: Path) -> str:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("select id, body from deed order by id").fetchall()
    finally:
        connection.close()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def _sqlite(tmp_path: Path, sites: list[dict[str, str]]) -> tuple[Campaign, Callable[[Path], str]]:
    source = tmp_path / "deeds.db"
    connection = sqlite3.connect(source)
    connection.execute("pragma journal_mode=wal")
    connection.execute("create table deed(id integer primary key, body blob)")
    fill = random.Random(1)
    connection.executemany("insert into deed(body) values (?)", [(fill.randbytes(900),) for _ in range(6000)])
    connection.commit()
    connection.close()

    def change(rnd: random.Random) -> None:
        connection = sqlite3.connect(source)
        with connection:
            for _ in range(30):
                connection.execute(
                    "update deed set body=? where id=?", (rnd.randbytes(900), rnd.randrange(6000))
                )
        connection.close()

    def read(place: Path) -> str:
        SqliteRebuilder().finish(place, {})
        return _rows(place / "deeds.db")

    world = dying_home.prepare(tmp_path / "home", kind="sqlite", source=str(source), sites=sites)
    return Campaign(tmp_path / "home", world, change, lambda: _rows(source)), read


MAKERS = {"files": _tree, "sqlite": _sqlite}


def _directories(tmp_path: Path) -> list[dict[str, str]]:
    return [{"directory": str(tmp_path / f"site{number}")} for number in range(2)]


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_killed_at_sampled_boundaries(tmp_path: Path, kind: str) -> None:
    _boundaries(tmp_path, kind, at_most=6)


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_killed_at_every_boundary(tmp_path: Path, kind: str) -> None:
    _boundaries(tmp_path, kind, at_most=10_000)


def _boundaries(tmp_path: Path, kind: str, at_most: int) -> None:
    """Before and after each call that makes something durable or visible (all, or evenly chosen ones)."""
    campaign, read = MAKERS[kind](tmp_path, _directories(tmp_path))
    rnd = random.Random(5)
    campaign.run(rnd)
    count = campaign.run(rnd).boundaries
    assert count > 10
    points = [f"{at}{side}" for at in range(1, count + 1) for side in ("", "+")]
    for point in points[:: -(-len(points) // at_most)]:
        end = campaign.run(rnd, point)
        if not end.killed:  # this run had fewer boundaries than the one that was counted
            assert int(point.rstrip("+")) > end.boundaries
            break
        newest = max(campaign.wanted)
        assert not campaign.run(rnd).killed
        assert max(campaign.wanted) == newest + 1
        campaign.check(read, [newest, newest + 1])
    campaign.check(read, sorted(campaign.wanted)[:: 1 + len(campaign.wanted) // 12])
    assert campaign.world.commits()[-1].sequence == len(campaign.wanted)


@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_killed_at_a_few_random_moments(tmp_path: Path, kind: str) -> None:
    _moments(tmp_path, kind, _directories(tmp_path), kills=4)


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_killed_at_many_random_moments(tmp_path: Path, kind: str) -> None:
    _moments(tmp_path, kind, _directories(tmp_path), kills=75)


@pytest.mark.long
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_killed_at_many_random_moments_over_s3(tmp_path: Path, kind: str) -> None:
    with Seaweed(tmp_path / "weed") as weed:
        weed.bucket(kind)
        s3 = {
            "url": f"s3://{kind}/site",
            "endpoint": weed.endpoint,
            "credentials_file": str(weed.credentials_file()),
        }
        _moments(tmp_path, kind, [_directories(tmp_path)[0], s3], kills=50)


def _moments(tmp_path: Path, kind: str, sites: list[dict[str, str]], kills: int) -> None:
    """SIGKILL from outside, at any moment of a run; then a whole run, and both must be as they say."""
    campaign, read = MAKERS[kind](tmp_path, sites)
    rnd = random.Random(11)
    begun = time.monotonic()
    campaign.run(rnd)
    usual = time.monotonic() - begun
    killed = 0
    while killed < kills:
        killed += campaign.run(rnd, kill_after_seconds=rnd.uniform(0.2, usual * 1.1)).killed
        if rnd.random() < 0.5:
            assert not campaign.run(rnd).killed
            campaign.check(read, [max(campaign.wanted)])
    campaign.run(rnd)
    campaign.check(read, sorted(campaign.wanted)[:: 1 + len(campaign.wanted) // 20])
    assert [commit.sequence for commit in campaign.world.commits()] == sorted(campaign.wanted)


@pytest.mark.long
def test_postgres_killed_at_many_random_moments(tmp_path: Path) -> None:
    _postgres_moments(tmp_path, kills=50)


def test_postgres_killed_at_a_few_random_moments(tmp_path: Path) -> None:
    _postgres_moments(tmp_path, kills=2)


def _postgres_moments(tmp_path: Path, kills: int) -> None:
    rnd = random.Random(3)
    with cluster(17) as source:
        source.run("create table deed(id serial primary key, body text)")
        source.run("insert into deed(body) select repeat(md5(i::text), 20) from generate_series(1, 5000) i")
        home = tmp_path / "home"
        world = dying_home.prepare(
            home, kind="postgres", source=source.conninfo, sites=_directories(tmp_path)
        )
        dying_home.ended(dying_home.start(home))
        made = 1
        killed = 0
        while killed < kills:
            source.run("update deed set body = md5(random()::text) where id % 97 = 3")
            process = dying_home.start(home)
            time.sleep(rnd.uniform(0.2, 1.6))
            process.kill()
            killed += dying_home.ended(process).killed
            seen = len(world.commits())
            assert seen in (made, made + 1)
            made = seen
        dying_home.ended(dying_home.start(home))
        assert len(world.commits()) == made + 1
        left_behind = source.run("select count(*) from pg_replication_slots")
        assert left_behind == [(0,)]
        for sequence in range(1, made + 2, 1 + made // 8):
            # Every file's digest is compared while it is restored.
            restored = world.restore(tmp_path / "restored", sequence=sequence)
            assert (tmp_path / "restored" / "PG_VERSION").read_text().strip() == "17"
            assert restored.sequence == sequence
            shutil.rmtree(tmp_path / "restored")
