"""What a host finds, what it can change unseen, and what a thief of home's files can open: nothing."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from exclave.crypto import open as crypto_open
from exclave.crypto import sign
from exclave.embassies.embassy import Embassy
from exclave.errors import ExclaveError, Tampered
from exclave.flows.verify import verify
from exclave.registers.files.register import FilesRegister
from exclave.registers.sqlite.register import SqliteRegister
from exclave.sealed import container, names
from exclave.stores.directory import DirectoryStore
from exclave.testing.world import Silent, World

PLAIN = b"The parcel at Rue de la Source 12 belongs to Aurelie Vandermeulen"
REGISTER = "land"  # the name that testing.world gives


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A tree with telling names and content, protected twice at three directories."""
    source = tmp_path / "source"
    (source / "deeds-of-vandermeulen").mkdir(parents=True)
    (source / "deeds-of-vandermeulen" / "parcel-4711.txt").write_bytes(PLAIN * 3)
    (source / "noise").write_bytes(os.urandom(3_000_000))
    (source / "link-to-parcel").symlink_to("deeds-of-vandermeulen/parcel-4711.txt")
    embassies: list[Embassy] = []
    for number in range(3):
        (tmp_path / f"site{number}").mkdir()
        embassies.append(Embassy(f"site{number}", DirectoryStore(tmp_path / f"site{number}")))
    world = World(tmp_path / "home", FilesRegister(source), embassies=embassies)
    world.protect()
    (source / "noise").write_bytes(os.urandom(2_000_000))
    world.protect()
    return world


def _objects(world: World, tmp_path: Path, kind: str, site: int = 0) -> list[Path]:
    root = tmp_path / f"site{site}" / "r" / world.keys.register
    return sorted(path for path in root.rglob("*") if path.is_file() and f"/{kind}/" in str(path))


def _verify(world: World) -> list[tuple[str, str]]:
    report = verify(world.embassies, [(world.keys.register, world.signer.verifier)], told=Silent())
    # This world has no ceremony, so no charter abroad: what is said of that is another test's.
    return [(one.embassy, one.path) for one in report.problems if not one.path.startswith("charter/")]


def test_nothing_telling_is_in_any_embassy(world: World, tmp_path: Path) -> None:
    world.restore(tmp_path / "out")  # the words are really in there
    assert (tmp_path / "out" / "deeds-of-vandermeulen" / "parcel-4711.txt").read_bytes() == PLAIN * 3
    telling = [
        PLAIN[:20], b"Vandermeulen", b"vandermeulen", b"parcel-4711", b"noise", b"deeds-of",
        str(tmp_path / "source").encode(), world.seed, world.keys.id_key, world.keys.index_key,
    ]  # fmt: skip
    telling += [secret.hex().encode() for secret in (world.seed, world.keys.id_key, world.keys.index_key)]
    looked = 0
    for site in range(3):
        for path in (tmp_path / f"site{site}").rglob("*"):
            assert not any(word.decode("latin-1") in str(path.relative_to(tmp_path)) for word in telling[:6])
            if path.is_file():
                data = path.read_bytes()
                assert not [word for word in telling if word in data], path
                assert f'"{REGISTER}"'.encode() not in data
                looked += 1
    assert looked > 20


def _damages(world: World, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Each kind of damage, done to site0; yields its name and the path that must be named."""
    rnd = random.Random(4)
    for kind in ("pack", "manifest", "index"):
        for damage in ("flipped", "truncated", "longer", "missing"):
            path = rnd.choice(_objects(world, tmp_path, kind))
            data = bytearray(path.read_bytes())
            path.chmod(0o600)
            if damage == "flipped":
                data[rnd.randrange(len(data))] ^= 1 << rnd.randrange(8)
            elif damage == "truncated":
                del data[-rnd.randrange(1, 2000) :]
            elif damage == "longer":
                data += b"\0"
            path.write_bytes(data)
            if damage == "missing":
                path.unlink()
            yield f"{kind} {damage}", path
    first, second = _objects(world, tmp_path, "pack")[:2]
    first.chmod(0o600)
    first.write_bytes(second.read_bytes())
    yield "pack swapped for another pack", first
    commit = _objects(world, tmp_path, "commit")[0]
    commit.chmod(0o600)
    commit.write_bytes(commit.read_bytes().replace(b'"gaps":0', b'"gaps":1'))
    yield "commit altered", commit


def _restore_both(world: World, place: Path, embassies: list[Embassy]) -> None:
    for sequence in (2, 1):
        world.restore(place / str(sequence), sequence=sequence, embassies=embassies)


def test_every_damage_is_named_by_verify_and_survived_by_restore(world: World, tmp_path: Path) -> None:
    assert _verify(world) == []
    shutil.copytree(tmp_path / "site0", tmp_path / "sound")
    seen = 0
    for number, (name, path) in enumerate(_damages(world, tmp_path)):
        inside = str(path.relative_to(tmp_path / "site0"))
        found = _verify(world)
        assert ("site0", inside) in found, name
        assert {embassy for embassy, _ in found} == {"site0"}, name
        alone = [one for one in world.embassies if one.name == "site0"]
        if "index" not in name:  # only home reads index parts
            with pytest.raises(ExclaveError):
                _restore_both(world, tmp_path / f"bad{number}", alone)
        world.restore(tmp_path / f"good{number}")  # another embassy has a sound copy
        shutil.rmtree(tmp_path / "site0")
        shutil.copytree(tmp_path / "sound", tmp_path / "site0")
        seen += 1
    assert seen == 14


def test_a_pack_of_another_register_or_epoch_is_refused_even_under_a_forged_name(tmp_path: Path) -> None:
    """A writer that was stolen could sign a commit that names foreign packs; they still do not open as its own."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(50_000))
    (tmp_path / "site0").mkdir()
    site = [Embassy("site0", DirectoryStore(tmp_path / "site0"))]
    world = World(tmp_path / "home", FilesRegister(source), embassies=site, copies=1)
    world.protect()
    first = world.keys
    foreign = world.commits()[0].packs[0]
    data = (tmp_path / "site0" / names.pack(first.register, first.epoch, foreign.id)).read_bytes()
    world.rotate()
    (source / "a").write_bytes(os.urandom(50_000))
    world.protect()
    newest = world.commits()[-1]
    own = newest.packs[0]
    forged = tmp_path / "site0" / names.pack(newest.register, newest.epoch, foreign.id)
    forged.parent.mkdir(exist_ok=True, parents=True)
    forged.write_bytes(data)
    report = verify(site, [(world.keys.register, world.signer.verifier)], told=Silent())
    assert any(problem.path.endswith(foreign.id) for problem in report.problems)
    swapped = replace(newest, packs=(replace(own, id=foreign.id, size=foreign.size),))
    header = container.parse(data)
    assert (header.epoch, header.number) == (first.epoch, foreign.number)
    from exclave.embassies.fetch import Fetcher
    from exclave.flows.reading import SnapshotReader
    from exclave.testing.world import SeedOpener

    reader = SnapshotReader(swapped, Fetcher(site), SeedOpener(world.seed))
    with pytest.raises(Tampered, match="something else than it should"):
        next(reader.packs(swapped.packs))


def test_a_thief_with_all_of_homes_files_cannot_open_what_is_abroad(tmp_path: Path) -> None:
    """Every 32 bytes that stand anywhere in home's files are tried as seed, content key and index key."""
    database = tmp_path / "business.db"
    connection = sqlite3.connect(database)
    connection.execute("create table t(a)")
    connection.executemany("insert into t values (?)", [(PLAIN,)] * 50)
    connection.commit()
    connection.close()
    (tmp_path / "site0").mkdir()
    site = [Embassy("site0", DirectoryStore(tmp_path / "site0"))]
    world = World(tmp_path / "home", SqliteRegister(database), embassies=site, copies=1)
    world.protect()
    database.unlink()  # yesterday's content is nowhere at home any more
    keys = tmp_path / "home" / "keys"
    signing = sign.generate_seed()
    held = [world.keys.id_key, world.keys.index_key, signing, *world.keys.recipients]
    keys.write_bytes(b"".join(held))
    candidates: set[bytes] = set()
    for path in (tmp_path / "home").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            candidates |= {data[at : at + 32] for at in range(len(data) - 31)}
    assert {world.keys.id_key, world.keys.index_key} <= candidates
    assert len(candidates) > 2000
    sealed = [*_objects(world, tmp_path, "pack"), *_objects(world, tmp_path, "manifest")]
    assert sealed
    opened = [path for path in sealed if _opens(path.read_bytes(), candidates)]
    assert opened == []
    assert _opens(sealed[0].read_bytes(), {world.seed})  # the attempt itself works


def _opens(data: bytes, candidates: set[bytes]) -> bool:
    header = container.parse(data)
    fixed = header.fixed()
    recipient = data[88:104]
    info = container.capsule_info(fixed, recipient)
    body = memoryview(data)[header.header_bytes :]
    for candidate in candidates:
        try:
            crypto_open.open_capsule(data[104:1272], crypto_open.private_key(candidate), info)
        except Tampered:
            pass
        else:
            return True
        try:
            crypto_open.open_body(body, candidate, container.body_context(fixed))
        except Tampered:
            continue
        return True
    return False


def test_sizes_tell_only_classes(world: World, tmp_path: Path) -> None:
    for kind in ("pack", "manifest", "index"):
        for path in _objects(world, tmp_path, kind):
            (plain,) = struct.unpack_from(">I", path.read_bytes(), 12)
            assert plain == container.size_class(plain)
