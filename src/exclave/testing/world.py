"""A small real world in memory: keys, embassies, a home; protect and restore through the real flows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from exclave.crypto import open as crypto_open
from exclave.crypto import sign
from exclave.embassies import inspect
from exclave.embassies.embassy import Embassy
from exclave.embassies.fetch import Fetcher
from exclave.errors import NotThere
from exclave.flows import protect as protecting
from exclave.flows import restore as restoring
from exclave.flows.home import Home, Protected
from exclave.flows.restore import Restored
from exclave.registers.base import Rebuilder, Register
from exclave.sealed import container
from exclave.sealed.commits import Commit
from exclave.sealed.keys import WriteKeys
from exclave.stores.memory import MemoryStore
from exclave.types import EpochId, RegisterId


class Silent:
    """Progress that nobody watches."""

    def phase(self, what: str, total: int = 0) -> None:
        """Nothing."""

    def told(self, files: int, done: int) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class SeedOpener:
    """Opens with a joined seed in this very process: for tests, where no host is an enemy."""

    seed: bytes = field(repr=False)

    def content_key(self, header: bytes) -> bytes:
        """See `sealed.keys.Opener`."""
        fixed = container.parse(header).fixed()
        start = container.FIXED_BYTES
        recipient = header[start : start + 16]
        capsule = header[start + 16 : start + container.RECIPIENT_BYTES]
        info = container.capsule_info(fixed, recipient)
        return crypto_open.open_capsule(capsule, crypto_open.private_key(self.seed), info)


@dataclass(slots=True)
class World:
    """One realm with one register under `folder`, and `sites` embassies in memory (or the given ones)."""

    folder: Path
    register: Register
    sites: int = 3
    copies: int = 2
    embassies: Sequence[Embassy] = ()
    seed: bytes = field(default_factory=lambda: os.urandom(32), repr=False)
    keys: WriteKeys = field(init=False)
    signer: sign.Signer = field(init=False)

    def __post_init__(self) -> None:
        self.keys = WriteKeys(
            os.urandom(32),
            RegisterId(os.urandom(16).hex()),
            EpochId(os.urandom(8).hex()),
            1,
            (crypto_open.public_key_of(self.seed),),
            os.urandom(32),
            os.urandom(32),
        )
        self.signer = sign.Signer("writer", sign.generate_seed())
        if not self.embassies:
            self.embassies = [Embassy(f"site{number}", MemoryStore()) for number in range(self.sites)]

    @property
    def home(self) -> Home:
        """The home of the register."""
        return Home("land", self.register, self.keys, self.signer, "c" * 64, b"boot", self.folder / "state")

    def rotate(self) -> None:
        """A new epoch: another id and sealing key of the same register (same seed, for simplicity)."""
        self.keys = replace(self.keys, epoch=EpochId(os.urandom(8).hex()), id_key=os.urandom(32))

    def protect(
        self, embassies: Sequence[Embassy] | None = None, *, patience_seconds: float = 5
    ) -> Protected:
        """One snapshot."""
        return protecting.protect(
            self.home,
            self.embassies if embassies is None else embassies,
            copies=self.copies,
            patience_seconds=patience_seconds,
            told=Silent(),
        )

    def commits(self, embassies: Sequence[Embassy] | None = None) -> list[Commit]:
        """All snapshots, oldest first."""
        sites = self.embassies if embassies is None else embassies
        return list(inspect.history(sites, self.keys.register, self.signer.verifier).commits)

    def restore(
        self,
        place: Path,
        *,
        sequence: int | None = None,
        only: bytes = b"",
        embassies: Sequence[Embassy] | None = None,
        rebuilder: Rebuilder | None = None,
    ) -> Restored:
        """A snapshot (the newest, unless `sequence` says another) into `place`."""
        sites = self.embassies if embassies is None else embassies
        commits = [one for one in self.commits(sites) if sequence in (None, one.sequence)]
        if not commits:
            raise NotThere("no-such-snapshot", f"No embassy shows snapshot {sequence}")
        return restoring.restore(
            commits[-1],
            fetcher=Fetcher(sites),
            opener=SeedOpener(self.seed),
            place=place,
            only=only,
            keep_owners=os.geteuid() == 0,
            rebuilder=rebuilder,
            told=Silent(),
        )
