"""Packs that are already abroad but not yet in a commit: what an interrupted `protect` need not do again.

An append-only file. A pack is noted when no embassy needs its bytes any more; the next run asks the embassies
whether they really have it. A half-written last record is cut off.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from exclave import homedisk
from exclave.crypto import hashing
from exclave.sealed.commits import Pack
from exclave.types import EpochId, ObjectId

_RECORD = struct.Struct("<8s32s8sQQI")  # checksum, pack id, epoch, number, size, bytes of chunk ids
_MAX_IDS_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Pending:
    """A pack that was sealed and sent, with the ids of its chunks (16 bytes each, in slot order)."""

    pack: Pack
    ids: bytes


class Session:
    """The file of pending packs of one register."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with homedisk.usable(path):
            path.parent.mkdir(parents=True, exist_ok=True)

    def pending(self, epoch: EpochId) -> list[Pending]:
        """What is noted for this epoch, in order."""
        found: list[Pending] = []
        if not self._path.exists():
            return found
        with homedisk.usable(self._path):
            data = self._path.read_bytes()
        at = 0
        while at + _RECORD.size <= len(data):
            checksum, pack_id, noted_epoch, number, size, length = _RECORD.unpack_from(data, at)
            end = at + _RECORD.size + length
            if length > _MAX_IDS_BYTES or end > len(data) or _checksum(data[at + 8 : end]) != checksum:
                break
            if noted_epoch == bytes.fromhex(epoch):
                pack = Pack(ObjectId(pack_id.hex()), number, size)
                found.append(Pending(pack, data[at + _RECORD.size : end]))
            at = end
        if at < len(data):
            with homedisk.usable(self._path):
                os.truncate(self._path, at)  # what is noted next would lie behind it, unread
        return found

    def note(self, epoch: EpochId, pending: Pending) -> None:
        """Remember a pack: durable on return."""
        pack = pending.pack
        record = _RECORD.pack(
            bytes(8), bytes.fromhex(pack.id), bytes.fromhex(epoch), pack.number, pack.size, len(pending.ids)
        )
        body = record[8:] + pending.ids
        with homedisk.usable(self._path), self._path.open("ab") as file:
            file.write(_checksum(body) + body)
            file.flush()
            os.fsync(file.fileno())

    def clear(self) -> None:
        """The packs are in a commit: forget them."""
        with homedisk.usable(self._path):
            self._path.unlink(missing_ok=True)


def _checksum(body: bytes) -> bytes:
    return hashing.blake3(body).digest()[:8]
