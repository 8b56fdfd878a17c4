"""Secret files at home: the write keys of each register epoch, and the writer's signing seed. None of them opens.

    <keys folder>/writer.seed                       64 bytes
    <keys folder>/<register>-<epoch>.keys           one document: id key, index key, recipients

All have mode 0600; a file that others may read is refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from exclave import codec
from exclave.charter.document import Charter, RegisterEntry
from exclave.crypto.hashing import sha256
from exclave.crypto.sign import SEED_BYTES, Signer
from exclave.crypto.suite import PUBLIC_KEY_BYTES
from exclave.errors import Misconfigured, Tampered
from exclave.sealed.keys import WriteKeys
from exclave.types import RegisterId

WRITER_SEED = "writer.seed"
_KEY_BYTES = 32
_LIMIT = 64 << 10


def read_write_keys(folder: Path, charter: Charter, register: RegisterId) -> WriteKeys:
    """What the writer of the register's current epoch needs. Raises Misconfigured, Tampered, NotThere."""
    entry = charter.register(register)
    path = _path(folder, entry)
    fields = codec.decode(read_secret(path, _LIMIT))
    try:
        keys = WriteKeys(
            realm=bytes.fromhex(charter.realm),
            register=entry.id,
            epoch=entry.epoch,
            term=entry.term,
            recipients=tuple(codec.unb64(one, size=PUBLIC_KEY_BYTES) for one in fields["recipients"]),
            id_key=codec.unb64(fields["id_key"], size=_KEY_BYTES),
            index_key=codec.unb64(fields["index_key"], size=_KEY_BYTES),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _wrong(path, "a key is missing") from error
    if keys.recipients != (entry.key,):
        raise _wrong(path, "it seals to another key than the charter says")
    return keys


def encode_write_keys(entry: RegisterEntry, *, id_key: bytes, index_key: bytes) -> bytes:
    """The content of the file of write keys. Secret."""
    return codec.encode(
        {"id_key": codec.b64(id_key), "index_key": codec.b64(index_key), "recipients": [codec.b64(entry.key)]}
    )


def write_keys_path(folder: Path, entry: RegisterEntry) -> Path:
    """Where the write keys of an epoch are kept."""
    return _path(folder, entry)


def signer_of(folder: Path, entry: RegisterEntry) -> Signer:
    """Signs commits of a register as the writer whom the charter names. Raises Misconfigured, Tampered."""
    signer = Signer(entry.writer.name, read_secret(folder / WRITER_SEED, SEED_BYTES))
    if signer.verifier != entry.writer:
        raise _wrong(folder / WRITER_SEED, "the charter names another writer's key")
    return signer


def writer_name(seed: bytes) -> str:
    """The name on the signature lines of the writer with this seed: a pseudonym made from its public key."""
    return "writer-" + sha256(Signer("writer", seed).verifier.raw)[:8].hex()


def read_secret(path: Path, limit: int) -> bytes:
    """A secret file of ours. Raises Misconfigured when it is missing, another user's, or readable for others."""
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                mode = f"its mode is {stat.S_IMODE(status.st_mode):04o} and its owner is user {status.st_uid}"
                raise Misconfigured(
                    "secret-exposed", f"{path} is not kept secret", why=mode, hint=f"chmod 600 {path}"
                )
            data = stream.read(limit + 1)
    except OSError as error:
        raise Misconfigured(
            "secret-unreadable",
            f"{path} cannot be read",
            why=error.strerror or str(error),
            hint="exclave doctor",
        ) from error
    if len(data) > limit:
        raise Misconfigured(
            "secret-unreadable", f"{path} cannot be used", why="it is too long", hint="exclave doctor"
        )
    return data


def _path(folder: Path, entry: RegisterEntry) -> Path:
    return folder / f"{entry.id}-{entry.epoch}.keys"


def _wrong(path: Path, why: str) -> Tampered:
    return Tampered("write-keys-wrong", f"{path} does not fit the charter", why=why, hint="exclave doctor")
