"""What a writer needs to seal one register's epoch: enough to close and to deduplicate, not to open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from exclave.types import EpochId, RegisterId


@dataclass(frozen=True, slots=True)
class WriteKeys:
    """The write side of a register epoch. Secrets are left out of its representation."""

    realm: bytes  # 32 bytes
    register: RegisterId
    epoch: EpochId
    term: int
    recipients: tuple[bytes, ...]  # raw X-Wing public keys, 1216 bytes each, 1 to 4
    id_key: bytes = field(repr=False)  # 32 bytes: chunk ids, digests
    index_key: bytes = field(repr=False)  # 32 bytes: the home-readable index


class Opener(Protocol):
    """Gives the content key of one object; lives where the joined register key is (`agents.keyholder`)."""

    def content_key(self, header: bytes) -> bytes:
        """The 32-byte content key of the object with this container header (section 3, without the body).

        Raises Tampered when the capsule is not for this key, Refused when the warrant does not name the register.
        """
        ...
