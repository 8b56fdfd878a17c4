"""What one embassy's host puts into his store harms that embassy: home goes on protecting at the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exclave.crypto.sign import Signer, generate_seed
from exclave.errors import Refused
from exclave.registers.files.register import FilesRegister
from exclave.sealed import commits, names
from exclave.testing.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(5000))
    return World(tmp_path, FilesRegister(source))


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("signed", [False, True])
def test_a_forged_next_commit_stops_nobody(world: World, before: int, *, signed: bool) -> None:
    for _ in range(before):
        world.protect()
    text = commits.TYPE + b"\n{}\n"
    note = Signer("writer", generate_seed()).sign(text) if signed else b"junk"
    world.embassies[0].store.put(names.commit(world.keys.register, 1, before + 1), note)
    for number in (1, 2):
        done = world.protect()
        assert done.sequence == before + number
        assert done.holders == {"site1", "site2"}
        assert set(done.behind) == {"site0"}
    assert [one.sequence for one in world.commits()] == list(range(1, before + 3))


def test_a_next_commit_that_the_writer_did_sign_still_fences(world: World) -> None:
    world.protect()
    store = world.embassies[0].store
    path = names.commit(world.keys.register, 1, 2)
    original = store.put

    def put(name: str, data: bytes) -> None:
        if name == path:
            original(name, world.signer.sign(commits.TYPE + b"\n{}\n"))
        original(name, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "put", put)
        with pytest.raises(Refused) as fenced:
            world.protect()
    assert fenced.value.id == "writer-fenced"
