"""The stand-alone reader restores what the product wrote, with the store, the joined seed and the charter alone."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from exclave.crypto import age
from exclave.registers.postgres import binaries
from exclave.runtimes import account as accounts
from exclave.testing.postgres import Cluster, cluster, workspace

ROOT = Path(__file__).parents[2]
READER = ROOT / "tools" / "exclave_reader.py"
PEOPLE = ("ana", "bruno", "carla", "dario", "elsa")


@dataclass
class Home:
    """A realm made by the real commands, with one embassy."""

    place: Path

    def do(self, *words: str | Path) -> str:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
        command = [sys.executable, "-m", "exclave", *map(str, words)]
        done = subprocess.run(
            command, cwd=self.place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def found(self, name: str, *source: str | Path) -> None:
        """Init, one register, an embassy and the ceremony."""
        self.place.mkdir()
        self.do("init", "--realm", "test")
        self.do("register", "add", name, *source)
        for embassy in ("vault", "cellar"):
            self.do("embassy", "add", embassy, self.place / embassy)
        people = [word for person in PEOPLE for word in ("--custodian", person)]
        self.do("ceremony", *people, "--threshold", "3", "--out", self.place / "custodians")

    @property
    def register(self) -> str:
        (found,) = os.listdir(self.place / "vault" / "r")
        return found

    def seed(self) -> Path:
        """What three custodians can always do: decrypt their age files, and join the seed with the reader."""
        seed = self.place / "seed"
        if seed.exists():
            return seed
        files: list[Path] = []
        for person in PEOPLE[1:4]:
            desk = self.place / "custodians" / person
            (sealed,) = (desk / "shares").glob("*.age")
            files.append(self.place / f"{person}.share")
            files[-1].touch(mode=0o600)
            identity = age.parse_identity_file((desk / "identity.txt").read_bytes())
            files[-1].write_bytes(age.decrypt(sealed.read_bytes(), identity))
        command = [sys.executable, "-I", READER, self.place / "vault", seed, "join", *files]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return seed

    def read(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """The stand-alone reader, isolated from the package."""
        charter = next((self.place / "charter").glob("*.note"))
        start = [sys.executable, "-I", READER, self.place / "vault", self.seed(), "--charter", charter]
        return subprocess.run([*start, *words], capture_output=True, text=True, check=False)

    def restored(self, to: Path, *words: str) -> Path:
        done = self.read("restore", "--register", self.register, "--to", to, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return to


def described(root: Path) -> dict[bytes, object]:
    """Everything that must come back, by path; hard links by which paths belong together."""
    found: dict[bytes, object] = {}
    twins: dict[int, list[bytes]] = {}
    top = os.fsencode(root)
    for folder, folders, names in os.walk(top):
        for name in [*folders, *names, b"."] if folder == top else [*folders, *names]:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            content: object = None
            if kind == stat.S_IFREG:
                content = (status.st_size, Path(os.fsdecode(path)).read_bytes())
                twins.setdefault(status.st_ino, []).append(os.path.relpath(path, top))
            elif kind == stat.S_IFLNK:
                content = os.readlink(path)
            xattrs = {
                n: os.getxattr(path, n, follow_symlinks=False)
                for n in os.listxattr(path, follow_symlinks=False)
            }
            where = os.path.relpath(path, top)
            found[where] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                content,
                sorted(xattrs.items()),
            )
    found[b"/twins"] = sorted(sorted(group) for group in twins.values() if len(group) > 1)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "hollow").mkdir(mode=0o500)
    (root / "deed.txt").write_text("parcel 7\n" * 300)
    (root / "deep" / "big").write_bytes(os.urandom(5_000_000) + bytes(3_000_000))
    (root / "deep" / "er" / "nothing").touch()
    for number in range(300):
        (root / "deep" / f"gazette-{number}.json").write_text(f'{{"number": {number}}}\n' * (number % 40 + 1))
    os.link(root / "deed.txt", root / "deep" / "same-deed")
    os.symlink("../deed.txt", root / "deep" / "towards")
    os.symlink(b"\xff nowhere", os.fsencode(root) + b"/not utf-8 \xfe")
    os.mkfifo(root / "pipe")
    with (root / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"in the middle")
        file.truncate(40 << 20)
    os.setxattr(root / "deed.txt", "user.office", b"land\0register")
    os.utime(root / "deep", ns=(1, 1_234_567_890_123_456_789))
    return root


def test_a_tree_and_its_change_come_back_whole(tree: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.found("documents", tree, "--kind", "files")
    home.do("protect", "documents")
    first = described(tree)
    (tree / "deep" / "gazette-3.json").unlink()
    (tree / "deep" / "er" / "nothing").unlink()
    (tree / "deep" / "er").rmdir()
    (tree / "deep" / "new").write_text("new")
    with (tree / "deep" / "big").open("r+b") as file:
        file.seek(2_000_000)
        file.write(os.urandom(1000))
    (tree / "deed.txt").chmod(0o600)
    home.do("protect", "documents")
    second = described(tree)
    assert first != second
    listed = home.read("list").stdout
    assert "documents (files)" in listed
    assert "change" in listed
    assert described(home.restored(tmp_path / "now")) == second
    assert described(home.restored(tmp_path / "then", "--sequence", "1")) == first


def test_a_sqlite_database_and_its_change_come_back(tmp_path: Path) -> None:
    source = tmp_path / "business.db"
    with sqlite3.connect(source) as database:
        database.execute("CREATE TABLE companies (id INTEGER PRIMARY KEY, name TEXT)")
        rows = [(n, f"company {n} " * 10) for n in range(20_000)]
        database.executemany("INSERT INTO companies VALUES (?, ?)", rows)
    home = Home(tmp_path / "home")
    home.found("business", source, "--kind", "sqlite")
    home.do("protect", "business")
    database.execute("UPDATE companies SET name = 'renamed' WHERE id % 500 = 3")
    database.commit()
    home.do("protect", "business")
    asked = "SELECT count(*), sum(length(name)), max(name) FROM companies"
    wanted = database.execute(asked).fetchone()
    database.close()
    assert "change" in home.read("list").stdout
    (restored,) = home.restored(tmp_path / "out").iterdir()
    again = sqlite3.connect(restored)
    assert again.execute(asked).fetchone() == wanted
    again.close()


@pytest.fixture(params=binaries.available())
def running(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster(request.param) as made:
        yield made


@pytest.mark.integration
def test_a_postgresql_cluster_and_its_change_start_from_it(running: Cluster, tmp_path: Path) -> None:
    sums = "SELECT count(*), md5(string_agg(l::text, '' ORDER BY id)) FROM land l"
    running.run("CREATE TABLE land AS SELECT g AS id, md5(g::text) AS deed FROM generate_series(1, 30000) g")
    home = Home(tmp_path / "home")
    home.found("land", "--kind", "postgres", "--conninfo", running.conninfo)
    home.do("protect", "land")
    with workspace() as folder:
        account = accounts.unprivileged()
        accounts.hand_over(account, folder)
        running.run(
            "UPDATE land SET deed = 'sold' WHERE id % 700 = 3",
            f"CREATE TABLESPACE far LOCATION '{_made(folder / 'space')}'",
            "CREATE TABLE parcels TABLESPACE far AS SELECT * FROM land",
        )
        wanted = running.run(sums)
        home.do("protect", "land")
        running.stop()
        try:
            out = folder / "restored"
            done = home.read("restore", "--register", home.register, "--to", out)
            assert done.returncode == 0, done.stdout + done.stderr
            assert f"PostgreSQL {running.major}" in done.stdout
            assert _served(running.major, folder, out, f"{sums}; {sums.replace('land', 'parcels')}") == wanted
        finally:
            running.start()


def _made(path: Path) -> Path:
    path.mkdir(mode=0o700)
    accounts.hand_over(accounts.unprivileged(), path)
    return path


def _connected(socket: Path) -> psycopg.Connection[tuple[object, ...]]:
    """As soon as recovery has ended; until then nobody is let in."""
    until = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(host=str(socket), user="postgres", dbname="postgres", autocommit=True)
        except psycopg.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _without_waldump(programs: Path) -> list[str]:
    return [] if (programs / "pg_waldump").exists() else ["--no-parse-wal"]


def _served(major: int, folder: Path, out: Path, query: str) -> list[tuple[object, ...]]:
    """Start it as the reader's last words say; the answer to each query, which must be the same."""
    account = accounts.unprivileged()
    programs = accounts.within_reach(account, binaries.find(major))
    start = Path(f"{out}-start")
    for tree in (out, start, Path(f"{out}-tablespaces")):
        accounts.hand_over(account, tree)
    # the reader lets in whoever owns the cluster; the test asks as root
    (start / "pg_hba.conf").write_text("local all all trust\n")
    user = {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
    options = f"-c config_file={start}/postgresql.conf"
    control = [programs / "pg_ctl", "-D", out, "-w", "-s", "-l", folder / "log", "-o", options]
    verify = [programs / "pg_verifybackup", "-q", "-i", "tablespace_map", *_without_waldump(programs), out]
    verified = subprocess.run(verify, cwd="/", check=False, capture_output=True, text=True, **user)
    assert verified.returncode == 0, verified.stderr
    started = subprocess.run([*control, "start"], cwd="/", check=False, stdin=subprocess.DEVNULL, **user)
    assert started.returncode == 0, (folder / "log").read_text()
    try:
        with _connected(start) as connection:
            answers = [connection.execute(part).fetchall() for part in query.split(";")]
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
        assert all(answer == answers[0] for answer in answers)
        return answers[0]
    finally:
        subprocess.run([*control, "-m", "fast", "stop"], cwd="/", check=True, **user)
