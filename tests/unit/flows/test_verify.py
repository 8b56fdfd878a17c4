"""Verify names every bad object and embassy, finds nothing where nothing is wrong, and is never green unproven."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from exclave.crypto import hashing
from exclave.crypto.sign import Signer
from exclave.embassies.embassy import Embassy
from exclave.flows.verification import Report
from exclave.flows.verify import verify
from exclave.sealed import container, names
from exclave.stores.directory import DirectoryStore
from exclave.stores.probe import probe
from exclave.stores.retrying import Retrying
from exclave.testing.sealed_world import SealedWorld, world
from exclave.testing.stores import Troubled, tamper

Bend = Callable[[bytearray], None]


class Quiet:
    def phase(self, what: str, total: int = 0) -> None:
        pass

    def told(self, files: int, done: int) -> None:
        pass


def check(made: SealedWorld, embassies: list[Embassy], *, sample: float | None = None) -> Report:
    return verify(embassies, [(made.register, made.signer.verifier)], sample=sample, told=Quiet())


def found(report: Report) -> list[tuple[str, str, str]]:
    return [(one.embassy, one.path, one.id) for one in report.problems]


def test_a_whole_store_is_good() -> None:
    made, embassies, stores, _ = world([3, 3, 2])
    probe(stores[1])
    report = check(made, embassies)
    assert report.verdict == "good"
    assert report.problems == ()
    assert [one.heads[made.register] for one in report.embassies] == [3, 3, 2]
    assert report.newest == {made.register: 3}
    first = report.embassies[0]
    assert (first.objects, first.read_objects, first.unnamed) == (12, 9, 0)
    assert first.read_bytes < first.bytes
    assert json.loads(json.dumps(report.document()))["verdict"] == "good"


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize("place", [0, 8, 9, 10, 11, 12, 20, 50, 70, 75, 85, 2000, -1])
def test_a_flipped_bit_anywhere_is_named(kind: int, place: int) -> None:
    made, embassies, stores, snapshots = world([2, 2])
    path = list(snapshots[1])[kind]
    bad = bytearray(snapshots[1][path])
    bad[place] ^= 4
    tamper(stores[1], path, bytes(bad))
    report = check(made, embassies)
    assert ("site1", path, "object-damaged") in found(report)
    assert {(one.embassy, one.path) for one in report.problems} == {("site1", path)}
    assert report.verdict == "bad"


@pytest.mark.parametrize("size", [0, 1, 87, 88, 4000, -1])
def test_a_truncated_object_is_named(size: int) -> None:
    made, embassies, stores, snapshots = world([1])
    path = next(iter(snapshots[0]))
    tamper(stores[0], path, snapshots[0][path][:size])
    assert ("site0", path, "object-damaged") in found(check(made, embassies))


def test_a_lengthened_object_is_named() -> None:
    made, embassies, stores, snapshots = world([1])
    path = next(iter(snapshots[0]))
    tamper(stores[0], path, snapshots[0][path] + b"\0")
    assert ("site0", path, "object-damaged") in found(check(made, embassies))


def test_a_missing_object_is_named() -> None:
    made, embassies, stores, snapshots = world([2, 2])
    path = list(snapshots[0])[1]
    tamper(stores[1], path, None)
    assert found(check(made, embassies)) == [("site1", path, "object-missing")]


def test_objects_swapped_between_names_are_named_both() -> None:
    made, embassies, stores, snapshots = world([2])
    one, two = next(iter(snapshots[0])), next(iter(snapshots[1]))
    tamper(stores[0], one, snapshots[1][two])
    tamper(stores[0], two, snapshots[0][one])
    assert found(check(made, embassies)) == sorted([("site0", p, "object-damaged") for p in (one, two)])


@pytest.mark.parametrize("what", ["register", "epoch", "realm", "number", "kind"])
def test_a_well_formed_object_that_belongs_elsewhere_is_named(what: str) -> None:
    """A writer's mistake or malice: signed into the commit, and yet another's. SHA-256 alone would not see it."""
    made = SealedWorld()
    other = SealedWorld(signer=made.signer)
    if what != "register":
        other.register = made.register
    if what != "epoch":
        other.epoch = made.epoch
    if what != "realm":
        other.realm = made.realm
    kind = container.MANIFEST if what == "kind" else container.PACK
    data = other.sealed(kind, 99 if what == "number" else 1)
    store = Troubled()
    snapshot = made.snapshot(packs=0)
    pack = hashing.object_id(data)
    made.sequence, made.previous = 0, "0" * 64
    from exclave.sealed.commits import Pack

    path, note = made.commit([Pack(pack, 1, len(data))])
    assert snapshot
    where = names.pack(made.register, made.epoch, pack)
    made.store({where: data, path: note}, [store])
    assert found(check(made, [Embassy("site0", store)])) == [("site0", where, "object-malformed")]


@pytest.mark.parametrize(
    "path",
    ["readme.txt", "r/x", "charter/1", "probe/../x".replace("../", ""), "probe/" + "0" * 32, "charter/00000001",
     "custody/" + "0" * 32 + "/" + "0" * 16, "r/" + "0" * 32 + "/commit/00000001/" + "0" * 16,
     "r/" + "0" * 32 + "/" + "0" * 16 + "/pack/ab/" + "cd" * 32,
     "r/" + "0" * 32 + "/" + "0" * 16 + "/manifest/" + hashing.object_id(b"plain text, perhaps even secret")],
)  # fmt: skip
def test_foreign_junk_is_a_failure(path: str) -> None:
    made, embassies, stores, _ = world([1])
    stores[0].inner.put(path, b"plain text, perhaps even secret")
    report = check(made, embassies)
    assert {(one.embassy, one.path) for one in report.problems} == {("site0", path)}


def test_objects_without_a_commit_are_counted_not_condemned() -> None:
    made, embassies, stores, _ = world([1, 1])
    interrupted = list(made.snapshot(packs=3).items())[:-1]
    made.store(dict(interrupted), [stores[0]])
    other = SealedWorld()
    other.store(other.snapshot(), [stores[1]])
    report = check(made, embassies)
    assert report.verdict == "good"
    assert [one.unnamed for one in report.embassies] == [5, 4]


def test_objects_of_a_commit_that_only_others_have_yet_are_not_unnamed() -> None:
    made, embassies, stores, snapshots = world([2, 1])
    made.store(dict(list(snapshots[1].items())[:-1]), [stores[1]])
    report = check(made, embassies)
    assert report.verdict == "good"
    assert report.embassies[1].unnamed == 0


def test_a_bad_commit_and_a_hole_are_named() -> None:
    made, embassies, stores, snapshots = world([3, 3])
    path = list(snapshots[1])[-1]
    tamper(stores[0], path, None)
    tamper(stores[1], path, snapshots[1][path].replace(b'"gaps":0', b'"gaps":1'))
    report = check(made, embassies)
    assert found(report) == [
        ("site0", list(snapshots[2])[-1], "commit-invalid"),
        ("site1", path, "commit-invalid"),
    ]


def test_a_fork_is_named() -> None:
    made, embassies, stores, snapshots = world([2, 1])
    rival = SealedWorld(signer=made.signer)
    rival.realm, rival.register, rival.epoch, rival.sequence = made.realm, made.register, made.epoch, 1
    rival.previous = hashing.object_id(list(snapshots[0].values())[-1])
    rival.store(rival.snapshot(), [stores[1]])
    assert "history-forked" in {one.id for one in check(made, embassies).problems}


def test_a_dark_site_leaves_it_unknown_and_the_others_are_checked() -> None:
    made, embassies, stores, _ = world([2, 2])
    stores[0].down = True
    report = check(made, embassies)
    assert report.verdict == "unknown"
    assert set(report.unreachable) == {"site0"}
    assert report.embassies[1].read_objects == 6


def test_a_site_that_goes_dark_in_between_is_unknown() -> None:
    made, embassies, stores, _ = world([2])
    range_of = stores[0].get_range

    def dark(name: str, start: int, length: int) -> bytes:
        stores[0].down = True
        return range_of(name, start, length)

    stores[0].get_range = dark  # type: ignore[method-assign]
    report = check(made, embassies)
    assert report.verdict == "unknown"
    assert report.problems == ()


def test_a_sample_reads_less_and_does_not_claim_more() -> None:
    made, embassies, stores, snapshots = world([40])
    report = check(made, embassies, sample=0.25)
    assert 0 < report.embassies[0].read_objects < 120
    assert report.verdict == "unknown"
    tamper(stores[0], next(iter(snapshots[7])), None)
    assert check(made, embassies, sample=0.0).verdict == "bad"


def test_big_objects_are_read_in_pieces(tmp_path: Path) -> None:
    made = SealedWorld()
    store = DirectoryStore(tmp_path)
    snapshot = made.snapshot(packs=2, plain_bytes=9 << 20)
    made.store(snapshot, [store])
    site = [Embassy("site0", Retrying(store))]
    assert check(made, site).verdict == "good"
    path = next(iter(snapshot))
    with (tmp_path / path).open("r+b") if os.geteuid() == 0 else _writable(tmp_path / path) as file:
        file.seek(5_000_000)
        file.write(secrets.token_bytes(2))
    assert found(check(made, site)) == [("site0", path, "object-damaged")]


def _writable(path: Path):
    path.chmod(0o600)
    return path.open("r+b")


def test_links_and_odd_names_in_a_directory_are_named(tmp_path: Path) -> None:
    made = SealedWorld()
    store = DirectoryStore(tmp_path)
    made.store(made.snapshot(), [store])
    (tmp_path / "charter").symlink_to("/etc")
    (tmp_path / "odd name").touch()
    os.mkfifo(tmp_path / "r" / "fifo")
    (tmp_path / "lost+found").mkdir()
    report = check(made, [Embassy("site0", Retrying(store))])
    assert {one.path for one in report.problems} == {"charter", "odd name", "r/fifo"}


def test_a_file_of_exabytes_is_named_and_not_read(tmp_path: Path) -> None:
    made, embassies, _, snapshots = world([1])
    store = DirectoryStore(tmp_path)
    for path, data in snapshots[0].items():
        store.put(path, data)
    huge = names.pack(made.register, made.epoch, hashing.object_id(b"huge"))
    (tmp_path / huge).parent.mkdir(exist_ok=True)
    with (tmp_path / huge).open("wb") as stream:
        stream.truncate(1 << 42)
    report = check(made, [*embassies, Embassy("holes", store)])
    assert found(report) == [("holes", huge, "object-damaged")]
    assert report.embassies[1].read_bytes < 1 << 20


def test_no_name_reaches_a_terminal_as_it_was_chosen(tmp_path: Path) -> None:
    made, embassies, _, snapshots = world([1])
    store = DirectoryStore(tmp_path)
    for path, data in snapshots[0].items():
        store.put(path, data)
    (tmp_path / "x\x1b[2J\nerror[fake]: \u202e\x07").touch()
    report = check(made, [*embassies, Embassy("names", store)])
    assert [one.path for one in report.problems] == ["x\\x1b[2J\\nerror[fake]: \\u202e\\x07"]


def test_no_embassy_makes_us_keep_more_papers_than_a_realm_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("exclave.flows.verify.MAX_PAPERS_BYTES", 1000)
    made, embassies, _, _ = world([1])
    store = DirectoryStore(tmp_path)
    for number in range(2, 6):
        note = Signer("nobody", secrets.token_bytes(64)).sign(b"exclave/charter/v1\nx\n")
        store.put(f"charter/{number:08x}", note)
    report = check(made, [*embassies, Embassy("papers", store)])
    assert {one.why for one in report.problems if one.embassy == "papers"} == {
        "there are more papers here than a realm has"
    }
