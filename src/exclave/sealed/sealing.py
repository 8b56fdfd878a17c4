"""Sealing: a filled plaintext becomes a stored object, named by the hash of its bytes. It cannot be undone here."""

from __future__ import annotations

from dataclasses import dataclass

from exclave.crypto import hashing, seal, suite
from exclave.sealed.container import INDEX, Header, body_context, capsule_info
from exclave.sealed.keys import WriteKeys
from exclave.types import ObjectId


@dataclass(frozen=True, slots=True)
class Sealed:
    """A finished object: its name, and its bytes (a view of the buffer it was sealed into)."""

    id: ObjectId
    data: memoryview


class Sealer:
    """Seals the objects of one register epoch. Reuses its scratch memory: one object at a time."""

    def __init__(self, keys: WriteKeys, boot_id: bytes) -> None:
        self._keys = keys
        self._boot_id = boot_id
        self._scratch = bytearray()

    def object_bytes(self, kind: int, plain_bytes: int) -> int:
        """Size of the object that `seal` makes of so many plaintext bytes."""
        return self._header(kind, 0, plain_bytes).object_bytes

    def seal(self, kind: int, number: int, plain: memoryview, out: memoryview) -> Sealed:
        """Seal `plain` (its length is a size class) into the beginning of `out`; checked that it opens again.

        `number` is the pack's, or the commit's sequence for manifest and index parts.
        """
        header = self._header(kind, number, len(plain))
        fixed = header.fixed()
        if len(self._scratch) < len(plain) + suite.UNIT_BYTES:
            self._scratch = bytearray(len(plain) + suite.UNIT_BYTES)
        if kind == INDEX:
            content_key, capsules = self._keys.index_key, b""
        else:
            content_key = seal.fresh_content_key(self._boot_id, hashing.digest(plain, self._keys.id_key))
            capsules = b"".join(self._capsule(content_key, fixed, key) for key in self._keys.recipients)
        whole = out[: header.object_bytes]
        whole[: len(fixed)] = fixed
        whole[len(fixed) : header.header_bytes] = capsules
        seal.seal_into(plain, whole[header.header_bytes :], content_key, body_context(fixed), self._scratch)
        return Sealed(hashing.object_id(whole), whole)

    def _header(self, kind: int, number: int, plain_bytes: int) -> Header:
        keys = self._keys
        recipients = 0 if kind == INDEX else len(keys.recipients)
        return Header(kind, plain_bytes, keys.realm, keys.register, keys.epoch, keys.term, number, recipients)

    def _capsule(self, content_key: bytes, fixed: bytes, public_key: bytes) -> bytes:
        recipient = seal.recipient_id(public_key)
        return recipient + seal.capsule(content_key, public_key, capsule_info(fixed, recipient))
