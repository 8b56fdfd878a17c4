"""A commit that was written can be read."""

from __future__ import annotations

import pytest

from exclave.crypto.sign import Signer, generate_seed
from exclave.errors import Refused
from exclave.sealed import commits
from exclave.sealed.commits import FIRST, Commit, Pack
from exclave.types import EpochId, Instant, ObjectId, RegisterId


def commit(packs: int) -> Commit:
    rows = tuple(Pack(ObjectId("d" * 64), one + 1, 4096) for one in range(packs))
    return Commit(
        realm="a" * 64, register=RegisterId("b" * 32), epoch=EpochId("c" * 16), term=1, sequence=1, previous=FIRST,
        at=Instant(0), manifest=(), index=(), packs=rows,
        full=True, gaps=0, charter=FIRST,
    )  # fmt: skip


def test_none_is_signed_that_its_readers_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer("writer", generate_seed())
    few = commit(20)
    monkeypatch.setattr(commits, "MAX_COMMIT_BYTES", 3000)
    assert commits.decode(commits.encode(few, signer), signer.verifier) == few
    with pytest.raises(Refused) as refused:
        commits.encode(commit(30), signer)
    assert refused.value.id == "commit-too-long"
