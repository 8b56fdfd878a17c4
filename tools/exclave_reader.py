#!/usr/bin/env python3
"""Restores a register from a sealed store with nothing but this file and the register's joined seed.

Written from docs/spec/store.md alone. Needs Python 3.11, `cryptography` >= 50, `zstandard` and `blake3`.

    python exclave_reader.py STORE SEED_FILE list
    python exclave_reader.py STORE SEED_FILE restore --register ID [--sequence N] --to DIR

STORE is a store laid out as a directory. SEED_FILE holds the 32-byte X-Wing seed of the register's epoch, raw or in
hex, and must be readable by its owner only. Nothing is believed before it is checked: commits by the hash chain (and
by the writer's signatures with --charter), objects by SHA-256, then capsule, body, tables, folders, root and files. DIR
appears only when every check has passed. Exit: 0 done, 1 failed, 2 usage, 3 done with gaps, 7 a check failed.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import struct
import sys
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import blake3
import zstandard
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

MIB = 1 << 20
SLOTS = 1 << 20
FRAME_LIMIT = 64 * MIB
BODY_LIMIT = 256 * MIB
NOTE_LIMIT = 64 * MIB
DEPTH_LIMIT = 32
NOTHING = bytes(32)
PACK, MANIFEST = 1, 2
MLDSA_TYPE = b"\xffexclave/ml-dsa-65/v1"

Document = dict[str, object]
Run = tuple[int, int]
Part = tuple[str, int]


class CheckError(Exception):
    """A stored byte is not what the specification asks for; nothing of it was used."""


class UsageError(Exception):
    """The command, the seed or the place cannot be used."""


def require(good: object, what: str) -> None:
    if not good:
        raise CheckError(what)


# -- documents and notes (section 2) --------------------------------------------------------------


def no_duplicates(pairs: list[tuple[str, object]]) -> Document:
    document = dict(pairs)
    require(len(document) == len(pairs), "a document has a key twice")
    return document


def no_float(_: str) -> object:
    raise CheckError("a document has a number that is not an integer")


def spell(document: object) -> bytes:
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def bounded(value: object) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, int):
            require(abs(item) < 1 << 53, "a document has an integer beyond 2^53")


def parse(raw: bytes) -> Document:
    try:
        found: object = json.loads(
            raw.decode("ascii"),
            object_pairs_hook=no_duplicates,
            parse_float=no_float,
            parse_constant=no_float,
        )
        require(isinstance(found, dict) and spell(found) == raw, "a document is not spelled canonically")
    except (ValueError, RecursionError) as error:
        raise CheckError("a document cannot be read") from error
    bounded(found)
    return found if isinstance(found, dict) else {}


def text(document: Document, key: str, pattern: str = "") -> str:
    value = document.get(key)
    if not isinstance(value, str) or (pattern and not re.fullmatch(pattern, value)):
        raise CheckError(f"a document has no good '{key}'")
    return value


def number(document: Document, key: str, low: int = 0, high: int = (1 << 53) - 1) -> int:
    value = document.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise CheckError(f"a document has no good '{key}'")
    return value


def items(document: Document, key: str) -> list[object]:
    value = document.get(key)
    if not isinstance(value, list):
        raise CheckError(f"a document has no good '{key}'")
    return value


def unbase(value: object) -> bytes:
    try:
        raw = base64.b64decode(value, validate=True) if isinstance(value, str) else None
    except (ValueError, binascii.Error):
        raw = None
    if raw is None or base64.b64encode(raw).decode() != value:
        raise CheckError("a document has bytes that are not padded base64")
    return raw


def parts_of(document: Document, key: str) -> list[Part]:
    found: list[Part] = []
    for part in items(document, key):
        if not isinstance(part, dict):
            raise CheckError(f"a document has no good '{key}'")
        found.append((text(part, "id", "[0-9a-f]{64}"), number(part, "size", 1)))
    return found


def lp(*parts: bytes) -> bytes:
    return b"".join(piece for part in parts for piece in (struct.pack(">I", len(part)), part))


@dataclass(frozen=True, slots=True)
class Charter:
    """Who writes which register: name, Ed25519 and ML-DSA-65 key by register and epoch, from charters you trust."""

    writers: dict[tuple[str, str], tuple[str, bytes, bytes]]
    realm: str

    @classmethod
    def load(cls, paths: Sequence[Path]) -> Charter:
        writers: dict[tuple[str, str], tuple[str, bytes, bytes]] = {}
        realm = ""
        for path in paths:
            body, _ = split_note(path.read_bytes(), b"exclave/charter/v1", str(path))
            document = parse(body.split(b"\n")[1])
            known = text(document, "realm", "[0-9a-f]{64}")
            if known == "0" * 64:  # the first charter cannot name itself: the realm is its text's hash
                known = hashlib.sha256(body).hexdigest()
            require(realm in {"", known}, "the charters belong to different realms")
            realm = known
            for register in items(document, "registers"):
                writer = register.get("writer") if isinstance(register, dict) else None
                if not isinstance(register, dict) or not isinstance(writer, dict):
                    raise CheckError(f"{path} has no good 'registers'")
                keys = unbase(writer.get("key"))
                where = (text(register, "id"), text(register, "epoch"))
                writers[where] = (text(writer, "name"), keys[:32], keys[32:])
        return cls(writers, realm)

    def check(self, commit: Commit, body: bytes, signatures: Sequence[str]) -> None:
        """Both signatures of the commit's writer over `body` verify, or CheckError."""
        require(commit.realm == self.realm, "a commit belongs to another realm than the charter")
        found = self.writers.get((commit.register, commit.epoch))
        if found is None:
            raise CheckError(f"the charters name no writer of epoch {commit.epoch} of the register")
        for kind, key in ((b"\x01", found[1]), (MLDSA_TYPE, found[2])):
            key_id = hashlib.sha256(found[0].encode() + b"\n" + kind + key).digest()[:4]
            mine = [
                raw[4:]
                for name, raw in map(signature_of, signatures)
                if name == found[0] and raw[:4] == key_id
            ]
            require(len(mine) == 1, "a commit lacks one of its writer's two signatures")
            try:
                if kind == MLDSA_TYPE:
                    MLDSA65PublicKey.from_public_bytes(key).verify(mine[0], body, context=b"exclave/note/v1")
                else:
                    Ed25519PublicKey.from_public_bytes(key).verify(mine[0], body)
            except (InvalidSignature, ValueError) as error:
                raise CheckError("a commit's signature is not its writer's") from error


def split_note(raw: bytes, kind: bytes, name: str) -> tuple[bytes, list[str]]:
    """What is signed of a note, and its signature lines."""
    body, gap, tail = raw.rpartition(b"\n\n")
    body += b"\n"
    require(gap != b"" and tail.endswith(b"\n") and body.count(b"\n") == 2, f"{name} is not a note")
    require(body.startswith(kind + b"\n"), f"{name} is a note of another type")
    try:
        return body, tail.decode().splitlines()
    except UnicodeDecodeError as error:
        raise CheckError(f"{name} has a broken signature line") from error


def signature_of(line: str) -> tuple[str, bytes]:
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    require(dash == "\u2014" and name != "", "a note has a broken signature line")
    return name, unbase(encoded)


# -- the store and its commits (sections 1 and 6) -------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commit:
    """One numbered snapshot. `packs` are (id, number, size) added by it."""

    realm: str
    register: str
    epoch: str
    term: int
    sequence: int
    previous: str
    at: str
    manifest: tuple[Part, ...]
    packs: tuple[tuple[str, int, int], ...]
    full: bool
    gaps: int
    digest: str


@dataclass(frozen=True, slots=True)
class Store:
    """A store laid out as a directory; it is never written to."""

    root: Path

    def read(self, name: str, size: int | None, limit: int = BODY_LIMIT * 2) -> bytes:
        """The object's bytes; its size is compared before anything is allocated."""
        try:
            descriptor = os.open(self.root / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError as error:
            raise CheckError(f"{name} is missing: {error.strerror}") from error
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor).st_size
            require(found <= limit and size in {None, found}, f"{name} has {found} bytes instead of {size}")
            raw = file.read(found)
        require(len(raw) == found, f"{name} became shorter while it was read")
        return raw

    def read_named(self, folder: str, part: Part) -> bytes:
        raw = self.read(f"{folder}/{part[0]}", part[1])
        require(hashlib.sha256(raw).hexdigest() == part[0], f"{folder}/{part[0]} does not have that SHA-256")
        return raw

    def names(self, folder: str, pattern: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.root / folder) if re.fullmatch(pattern, name))
        except OSError:
            return []

    def chain(self, register: str, charter: Charter | None) -> tuple[list[Commit], int]:
        """The commits up to the newest, oldest first, each checked; and how many others lie beside the chain."""
        found: dict[str, Commit] = {}
        for term in self.names(f"r/{register}/commit", "[0-9a-f]{8}"):
            for sequence in self.names(f"r/{register}/commit/{term}", "[0-9a-f]{16}"):
                commit = self.commit(f"r/{register}/commit/{term}/{sequence}", charter)
                where = (commit.register, commit.term, commit.sequence)
                require(
                    where == (register, int(term, 16), int(sequence, 16)),
                    "a commit lies under another's name",
                )
                found[commit.digest] = commit
        require(bool(found), f"the store has no commit of register {register}")
        chain = [max(found.values(), key=lambda commit: (commit.term, commit.sequence))]
        while chain[-1].sequence > 1:
            newer = chain[-1]
            older = found.get(newer.previous)
            if older is None:
                raise CheckError(
                    f"commit {newer.sequence - 1}, which commit {newer.sequence} names, is missing"
                )
            require(
                older.sequence == newer.sequence - 1
                and older.term <= newer.term
                and older.realm == newer.realm,
                f"commit {newer.sequence} does not follow commit {older.sequence}",
            )
            chain.append(older)
        require(chain[-1].previous == "0" * 64, "the first commit names one before it")
        return chain[::-1], len(found) - len(chain)

    def commit(self, name: str, charter: Charter | None) -> Commit:
        raw = self.read(name, None, NOTE_LIMIT)
        body, signatures = split_note(raw, b"exclave/commit/v1", name)
        document = parse(body.split(b"\n")[1])
        packs: list[tuple[str, int, int]] = []
        for pack in items(document, "packs"):
            if not isinstance(pack, dict):
                raise CheckError(f"{name} has no good 'packs'")
            packs.append(
                (
                    text(pack, "id", "[0-9a-f]{64}"),
                    number(pack, "number", 0, (1 << 43) - 1),
                    number(pack, "size"),
                )
            )
        commit = Commit(
            realm=text(document, "realm", "[0-9a-f]{64}"),
            register=text(document, "register", "[0-9a-f]{32}"),
            epoch=text(document, "epoch", "[0-9a-f]{16}"),
            term=number(document, "term"),
            sequence=number(document, "sequence", 1),
            previous=text(document, "previous", "[0-9a-f]{64}"),
            at=text(document, "at", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"),
            manifest=tuple(parts_of(document, "manifest")),
            packs=tuple(packs),
            full=document.get("full") is True,
            gaps=number(document, "gaps"),
            digest=hashlib.sha256(raw).hexdigest(),
        )
        if charter is not None:
            charter.check(commit, body, signatures)
        return commit


# -- containers (section 3) -----------------------------------------------------------------------


class Seed:
    """The joined X-Wing seed of one register's epoch. Opens capsules made to its public key."""

    def __init__(self, seed: bytes) -> None:
        expanded = hashlib.shake_256(seed).digest(96)
        kem, curve = (
            MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
            X25519PrivateKey.from_private_bytes(expanded[64:]),
        )
        public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        self.recipient = hashlib.sha256(public).digest()[:16]
        self._private = hpke.MLKEM768X25519PrivateKey(kem, curve)
        self._suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

    @classmethod
    def load(cls, path: Path) -> Seed:
        """Raises UsageError unless the file is private and holds 32 bytes or their hex."""
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode) or mode & 0o077:
                raise UsageError(f"{path} can be read by others; make it private first: chmod 600 {path}")
            raw = file.read(128)
        if len(raw) != 32:
            try:
                raw = bytes.fromhex(raw.decode("ascii").strip())
            except ValueError:
                raw = b""
        if len(raw) != 32:
            raise UsageError(f"{path} must hold 32 bytes, raw or in hex")
        return cls(raw)

    def open(self, capsule: bytes, info: bytes) -> bytes:
        return self._suite.decrypt(capsule, self._private, info=info)


def open_container(
    raw: bytes, kind: int, commit: Commit, where: tuple[int | None, int | None], seed: Seed
) -> memoryview:
    """The plaintext of a pack or manifest part of `commit`'s register and epoch.

    `where`: the term and number that it must bear; None where that is not known.
    """
    require(len(raw) >= 88 and raw[:8] == b"exclave\x01", "an object is not a container")
    found_kind, suite, recipients, zero, size = struct.unpack_from(">BBBBI", raw, 8)
    require((found_kind, suite, zero) == (kind, 1, 0), "a container is of another kind or suite")
    require(1 <= recipients <= 4, "a container has an impossible number of recipients")
    shift = size.bit_length() - 4
    require(
        4096 <= size <= BODY_LIMIT and size >> shift << shift == size, "a container's size is no size class"
    )
    start = 88 + 1184 * recipients
    require(
        len(raw) == start + 56 + size + 16 * (size // 16384 + 1),
        "a container is longer or shorter than it says",
    )
    identity = bytes.fromhex(commit.realm + commit.register + commit.epoch)
    require(raw[16:72] == identity, "a container belongs to another realm, register or epoch")
    found_where = struct.unpack_from(">QQ", raw, 72)
    same = all(wanted in {None, is_} for wanted, is_ in zip(where, found_where, strict=True))
    require(same and found_where[0] <= commit.term, "a container bears another term or number")
    for at in range(88, start, 1184):
        if raw[at : at + 16] == seed.recipient:
            capsule = raw[at + 16 : at + 1184]
            break
    else:
        raise CheckError(
            "this seed is not a recipient of the container: it is the seed of another register or epoch"
        )
    try:
        key = seed.open(capsule, lp(b"exclave/capsule/v1", raw[:88], seed.recipient))
        decryptor = Cobblestone256Decryptor(key, lp(b"exclave/body/v1", raw[:88]))
        plain = bytearray(size + 16384)
        length = decryptor.update_into(memoryview(raw)[start:], plain)
        rest = decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise CheckError("a container does not open under this seed") from error
    plain[length : length + len(rest)] = rest
    require(length + len(rest) == size, "a container's body has another length than it says")
    return memoryview(plain)[:size]


def inflate(stored: memoryview, raw_size: int) -> bytes:
    """Exactly `raw_size` bytes, which the caller has bounded; the size in a zstd header is not believed."""
    if len(stored) == raw_size:
        return bytes(stored)
    try:
        header = zstandard.get_frame_parameters(stored)
        require(
            header.content_size in {raw_size, zstandard.CONTENTSIZE_UNKNOWN}, "a frame lies about its length"
        )
        raw = zstandard.ZstdDecompressor().decompress(
            stored, max_output_size=max(raw_size, 1), allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CheckError("a frame cannot be decompressed") from error
    require(len(raw) == raw_size, "a frame has another length than its table says")
    return raw


def unsigned(raw: bytes, at: int, count: int) -> array[int]:
    column = array("I")
    column.frombytes(raw[at : at + 4 * count])
    if sys.byteorder == "big":
        column.byteswap()
    return column


class Slots:
    """Slots of one opened container by number; a frame is inflated when asked for and the last few are kept."""

    def __init__(self, plain: memoryview) -> None:
        size = len(plain)
        stored, raw_size = struct.unpack_from(">II", plain, size - 8)
        require(
            stored <= size - 8 and 8 <= raw_size <= 8 + 20 * SLOTS,
            "a table of contents has impossible bounds",
        )
        end = size - 8 - stored
        table = inflate(plain[end : size - 8], raw_size)
        frames, slots = struct.unpack_from("<II", table)
        require(frames <= SLOTS and slots <= SLOTS, "a table of contents counts too much")
        require(
            raw_size == 8 + 16 * frames + 4 * slots, "a table of contents has another length than it counts"
        )
        self._offset, self._stored, self._raw, first = (
            unsigned(table, 8 + 4 * frames * n, frames) for n in range(4)
        )
        self.lengths = unsigned(table, 8 + 16 * frames, slots)
        self._first = [*first, slots]
        require(self._first[0] == 0, "a table of contents leaves out its first slots")
        at = 0
        for frame in range(frames):
            require(self._offset[frame] >= at, "frames overlap")
            at = self._offset[frame] + self._stored[frame]
            low, high = self._first[frame : frame + 2]
            require(
                at <= end and self._raw[frame] <= FRAME_LIMIT and low <= high <= slots,
                "a frame is out of bounds",
            )
            require(sum(self.lengths[low:high]) == self._raw[frame], "slots do not fill their frame")
        require(not bytes(plain[at:end]).strip(b"\0"), "a container's padding is not zeros")
        self._plain = plain
        self._kept: OrderedDict[int, tuple[bytes, list[int]]] = OrderedDict()

    def _frame(self, frame: int) -> tuple[bytes, list[int]]:
        if frame not in self._kept:
            start = self._offset[frame]
            raw = inflate(self._plain[start : start + self._stored[frame]], self._raw[frame])
            starts = [0]
            for length in self.lengths[self._first[frame] : self._first[frame + 1]]:
                starts.append(starts[-1] + length)
            self._kept[frame] = (raw, starts)
            while len(self._kept) > 1 and sum(len(kept) for kept, _ in self._kept.values()) > FRAME_LIMIT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(frame)
        return self._kept[frame]

    def read(self, slot: int, count: int) -> Iterator[memoryview]:
        """The bytes of `count` slots from `slot` on, a piece for each frame that they lie in."""
        require(slot >= 0 and slot + count <= len(self.lengths), "a reference goes beyond its pack")
        while count:
            frame = bisect_right(self._first, slot) - 1
            taken = min(count, self._first[frame + 1] - slot)
            raw, starts = self._frame(frame)
            low = slot - self._first[frame]
            yield memoryview(raw)[starts[low] : starts[low + taken]]
            slot, count = slot + taken, count - taken


# -- manifest (section 5) -------------------------------------------------------------------------


@dataclass(slots=True)
class Entry:
    """One row of a folder.

    `flat` is reference, count, reference, count ... in order of content; `begins` is where each of these runs begins: a
    page, or a byte offset in the content; a file that was patched has none.
    """

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    page: int
    digest: bytes
    flat: array[int]
    begins: array[int]
    extra: Document | None = None

    def runs(self) -> Iterator[Run]:
        return zip(self.flat[::2], self.flat[1::2], strict=True)

    def chunks(self) -> int:
        return sum(self.flat[1::2])

    def data(self) -> list[Run]:
        """(offset, length) of what is stored of a file; the rest are holes. A further hard link stores nothing."""
        if self.extra is not None and "twin" in self.extra:
            return []
        if self.extra is None or "holes" not in self.extra:
            return [(0, self.size)] if self.size else []
        found: list[Run] = []
        end = 0
        for hole in items(self.extra, "holes"):
            if not (isinstance(hole, list) and len(hole) == 2 and all(type(value) is int for value in hole)):
                raise CheckError("a sparse file's list is broken")
            require(
                hole[0] >= end and hole[1] > 0 and hole[0] + hole[1] <= self.size,
                "a sparse file's list is broken",
            )
            end = hole[0] + hole[1]
            found.append((hole[0], hole[1]))
        return found

    def blob(self, key: str) -> bytes | None:
        return unbase(self.extra[key]) if self.extra is not None and key in self.extra else None


@dataclass(slots=True)
class Folder:
    """Entries by name, and the digest that they must have together."""

    entries: dict[bytes, Entry] = field(default_factory=dict)
    digest: str = ""


class Columns:
    """Reads a record's columns one after the other; every length is compared with what is left."""

    def __init__(self, raw: bytes, at: int) -> None:
        self._raw, self._at = raw, at

    def take(self, size: int) -> bytes:
        require(0 <= size <= len(self._raw) - self._at, "a column goes beyond its record")
        self._at += size
        return self._raw[self._at - size : self._at]

    def integers(self, count: int) -> array[int]:
        column = array("q")
        column.frombytes(self.take(8 * count))
        if sys.byteorder == "big":
            column.byteswap()
        return column

    def close(self) -> None:
        require(self._at == len(self._raw), "a record has bytes after its last column")


def patched(base: array[int], pages: int, patches: Sequence[tuple[int, int, int]]) -> array[int]:
    """`base` cut to `pages`, with each patch (page, reference, count) laid over it. Works on runs, never on pages."""
    out = array("q")
    at, index, skipped = 0, 0, 0

    def put(reference: int, count: int) -> None:
        if out and out[-2] + out[-1] == reference and reference % SLOTS:
            out[-1] += count
        else:
            out.extend((reference, count))

    def copy(upto: int, *, keep: bool) -> None:
        nonlocal at, index, skipped
        while at < upto and index < len(base):
            taken = min(base[index + 1] - skipped, upto - at)
            if keep:
                put(base[index] + skipped, taken)
            at, skipped = at + taken, skipped + taken
            if skipped == base[index + 1]:
                index, skipped = index + 2, 0

    for page, reference, count in patches:
        require(at <= page and page + count <= pages, "patches overlap or go beyond the file")
        copy(page, keep=True)
        require(at == page, "a page was added and not given")
        copy(page + count, keep=False)
        at = page + count
        put(reference, count)
    copy(pages, keep=True)
    require(at == pages, "a page was added and not given")
    return out


class Tree:
    """A manifest with the chain it stands on, folded from the full one forward."""

    def __init__(self) -> None:
        self.packs: dict[int, Part] = {}
        self.folders: dict[bytes, Folder] = {}
        self.head: Document = {}
        self._told: dict[bytes, bytes] = {}

    def begin(self, gone: Sequence[object]) -> None:
        """Before the records of the next manifest: folders that went, and nothing told yet."""
        self.head, self._told = {}, {}
        for encoded in gone:
            require(self.folders.pop(unbase(encoded), None) is not None, "a folder went that was not there")

    def apply(self, raw: bytes) -> None:
        require(len(raw) >= 4, "a record is too short")
        (length,) = struct.unpack_from(">I", raw)
        require(length <= len(raw) - 4, "a record's document goes beyond it")
        document, columns = parse(raw[4 : 4 + length]), Columns(raw, 4 + length)
        kind = text(document, "record")
        if kind == "packs":
            self._packs(number(document, "rows"), columns)
        elif kind == "folder":
            self._folder(document, columns)
        elif kind == "head":
            require(document.get("version") == 1, "the manifest is of another version")
            self.head = document
        else:
            raise CheckError(f"the manifest has a record of unknown kind '{kind[:40]}'")
        columns.close()

    def _packs(self, rows: int, columns: Columns) -> None:
        numbers, ids, sizes = columns.integers(rows), columns.take(32 * rows), columns.integers(rows)
        for row, (name, size) in enumerate(zip(numbers, sizes, strict=True)):
            part = (ids[32 * row : 32 * row + 32].hex(), size)
            require(self.packs.setdefault(name, part) == part, "two packs have one number")

    def _folder(self, document: Document, columns: Columns) -> None:
        rows, runs = number(document, "rows"), number(document, "runs")
        path, digest = unbase(document.get("path")), text(document, "digest", "[0-9a-f]{64}")
        folder = self.folders.setdefault(path, Folder())
        joined = columns.take(number(document, "names"))
        names = joined.split(b"\0")
        require(names.pop() == b"" and len(names) == rows, "a folder's names are not as many as its rows")
        require(all(low < high for low, high in pairwise(names)), "a folder's names are not sorted")
        attributes = [columns.integers(rows) for _ in range(5)]
        pages, is_patched, counts = columns.integers(rows), columns.take(rows), columns.integers(rows)
        steps, lengths, places = (columns.integers(runs) for _ in range(3))
        digests = columns.take(32 * rows)
        extras = document.get("extras")
        if not isinstance(extras, dict):
            raise CheckError("a folder has no extras")
        require(
            all(key.isdecimal() and key == str(int(key)) and int(key) < rows for key in extras),
            "a stray extra",
        )
        before_it = self._told.get(path)
        if before_it is not None:
            more = (
                folder.digest == digest
                and not items(document, "removed")
                and (not names or before_it < names[0])
            )
            require(more, "a folder's second record contradicts its first")
        self._told[path], folder.digest = names[-1] if names else before_it or b"", digest
        for name in items(document, "removed"):
            require(folder.entries.pop(unbase(name), None) is not None, "an entry went that was not there")
        references, reference = array("q"), 0
        for step in steps:
            reference += step
            require(0 <= reference < 1 << 63, "a reference is out of bounds")
            references.append(reference)
        for first, length in zip(references, lengths, strict=True):
            require(0 < length <= SLOTS - first % SLOTS, "a run leaves its pack")
        run = 0
        for row, name in enumerate(names):
            require(0 <= counts[row] <= runs - run, "a row has more runs than its folder")
            mine = array("q", bytes(16 * counts[row]))
            mine[::2], mine[1::2] = references[run : run + counts[row]], lengths[run : run + counts[row]]
            begins = places[run : run + counts[row]]
            run += counts[row]
            mode, uid, gid, size, mtime_ns = (column[row] for column in attributes)
            require(size >= 0 and 0 <= pages[row] <= MIB and mode >= 0, "a row has impossible attributes")
            require(is_patched[row] <= 1, "a row is neither patched nor whole")
            extra, file_digest = extras.get(str(row)), digests[32 * row : 32 * row + 32]
            require(extra is None or isinstance(extra, dict), "an extra is no object")
            entry = Entry(mode, uid, gid, size, mtime_ns, pages[row], file_digest, mine, begins, extra)
            self._place(
                entry, folder.entries.get(name) if is_patched[row] else None, patch=is_patched[row] == 1
            )
            folder.entries[name] = entry
        require(run == runs, "a folder has runs that belong to no row")

    @staticmethod
    def _place(entry: Entry, before: Entry | None, *, patch: bool) -> None:
        """Lay a patch over what it changes, or check that a whole row's runs follow each other."""
        content = sum(length for _, length in entry.data()) if stat.S_ISREG(entry.mode) else 0
        pages = -(-content // entry.page) if entry.page else 0
        if patch:
            if before is None or not entry.page or before.page != entry.page:
                raise CheckError("a patch has nothing to stand on")
            laid = [
                (page, first, count) for page, (first, count) in zip(entry.begins, entry.runs(), strict=True)
            ]
            entry.flat, entry.begins = patched(before.flat, pages, laid), array("q")
        elif entry.page:
            at = 0
            for begin, count in zip(entry.begins, entry.flat[1::2], strict=True):
                require(begin == at, "a whole file's runs do not follow each other")
                at += count
            require(at == pages, "a file has another number of pages than its size")
        else:
            edges = [-1, *entry.begins, content]
            require(all(low < high for low, high in pairwise(edges[1:])), "a file's runs are out of order")
            require(not content or edges[1] == 0, "a file's content does not begin with a run")

    def check(self) -> None:
        """The digests of all folders and the root; that every folder hangs in the tree under a harmless name."""
        id_key = unbase(self.head.get("id_key"))
        require(len(id_key) == 32, "the id key is not 32 bytes long")
        list_key = derive_list_key(id_key)
        everything: list[bytes] = []
        for path in sorted(self.folders):
            folder = self.folders[path]
            names = sorted(folder.entries)
            for name in names:
                require(
                    b"/" not in name and name not in {b"", b".."} and (name != b"." or path == b""),
                    "a harmful name",
                )
            parent, _, own = path.rpartition(b"/")
            above = self.folders.get(parent, Folder()).entries.get(own or b".")
            require(above is not None and stat.S_ISDIR(above.mode), "a folder hangs in no other folder")
            found = folder_digest(list_key, path, [(name, folder.entries[name]) for name in names])
            require(
                found.hex() == folder.digest, f"folder {show(path)} does not have the digest in the manifest"
            )
            everything += [path, found]
        root = blake3.blake3(lp(*everything), key=list_key).hexdigest()
        require(
            b"" in self.folders and root == text(self.head, "root"), "the manifest does not have its own root"
        )

    def paths(self) -> Iterator[tuple[bytes, Entry]]:
        for folder in sorted(self.folders):
            for name, entry in sorted(self.folders[folder].entries.items()):
                yield (name if not folder else folder + b"/" + name), entry


def derive_list_key(id_key: bytes) -> bytes:
    return blake3.blake3(id_key, derive_key_context="exclave/file-digest/v1").digest()


def folder_digest(list_key: bytes, path: bytes, entries: Sequence[tuple[bytes, Entry]]) -> bytes:
    fields: list[Callable[[Entry], int]] = [
        lambda entry: entry.mode,
        lambda entry: entry.uid,
        lambda entry: entry.gid,
        lambda entry: entry.size,
        lambda entry: entry.mtime_ns,
    ]
    columns = [struct.pack(f"<{len(entries)}q", *(of(entry) for _, entry in entries)) for of in fields]
    extras = spell(
        {str(row): entry.extra for row, (_, entry) in enumerate(entries) if entry.extra is not None}
    )
    names = b"".join(name + b"\0" for name, _ in entries)
    digests = b"".join(entry.digest for _, entry in entries)
    return blake3.blake3(lp(path, names, b"".join(columns), digests, extras), key=list_key).digest()


def show(path: bytes) -> str:
    """A path fit for a terminal."""
    return ascii(path.decode("utf-8", "surrogateescape"))[1:-1]


class Snapshot:
    """Opens the objects of one commit."""

    def __init__(self, store: Store, chain: Sequence[Commit], commit: Commit, seed: Seed) -> None:
        self._store, self.commit, self._seed = store, commit, seed
        self._base = f"r/{commit.register}/{commit.epoch}"
        self._sealed = {pack for older in chain if older.sequence <= commit.sequence for pack in older.packs}
        self.tree = Tree()

    def _part(self, part: Part, where: tuple[int, int] | None) -> Slots:
        raw = self._store.read_named(f"{self._base}/manifest", part)
        return Slots(open_container(raw, MANIFEST, self.commit, where or (None, None), self._seed))

    def head(self, parts: Sequence[Part], where: tuple[int, int] | None) -> Document:
        require(bool(parts), "a manifest has no parts")
        slots = self._part(parts[-1], where)
        require(len(slots.lengths) > 0, "a manifest part is empty")
        tree = Tree()
        tree.apply(b"".join(slots.read(len(slots.lengths) - 1, 1)))
        require(bool(tree.head), "a manifest does not end in its head")
        return tree.head

    def fold(self) -> Tree:
        """Follows the chain to the full manifest, then applies it forward. Verified when this returns."""
        links: list[tuple[Sequence[Part], tuple[int, int], Document]] = []
        parts: Sequence[Part] = self.commit.manifest
        where: tuple[int, int] | None = (self.commit.term, self.commit.sequence)
        depth: int | None = None
        while True:
            head = self.head(parts, where)
            found = number(head, "depth", 0, DEPTH_LIMIT)
            place = (number(head, "term"), number(head, "sequence", 1))
            require(where in {None, place}, "a manifest is not the one of its commit")
            require(depth is None or found == depth - 1, "a manifest chain has another depth than it says")
            require(not links or place < links[-1][1], "a manifest stands on a later one")
            links.append((parts, place, head))
            parts, depth, where = parts_of(head, "parents"), found, None
            require((found == 0) == (not parts), "a manifest chain has another depth than it says")
            if not parts:
                break
        for parts, place, head in reversed(links):
            self.tree.begin(items(head, "gone"))
            for part in parts:
                slots = self._part(part, place)
                for slot in range(len(slots.lengths)):
                    require(not self.tree.head, "a record follows the head")
                    self.tree.apply(b"".join(slots.read(slot, 1)))
        self.tree.check()
        return self.tree

    def pack(self, name: int) -> Slots:
        part = self.tree.packs.get(name)
        if part is None or (part[0], name, part[1]) not in self._sealed:
            raise CheckError(f"pack {name} is in no commit up to this one")
        raw = self._store.read_named(f"{self._base}/pack/{part[0][:2]}", part)
        return Slots(open_container(raw, PACK, self.commit, (None, name), self._seed))


# -- rebuilding (section 7) -----------------------------------------------------------------------


class Rebuild:
    """Writes a folded tree into a folder that nobody else can see yet."""

    def __init__(self, snapshot: Snapshot, place: bytes, say: Callable[[str], None]) -> None:
        self._snapshot, self._place, self._say = snapshot, place, say
        self._entries = list(snapshot.tree.paths())
        self._extents: dict[int, list[Run]] = {}
        self.gaps: list[str] = []

    def run(self) -> None:
        self._room()
        self._make()
        self._write()
        self._compare()
        self._link()
        self._dress()

    def _at(self, path: bytes) -> bytes:
        return self._place if path == b"." else self._place + b"/" + path

    def _files(self) -> Iterator[tuple[int, bytes, Entry]]:
        for index, (path, entry) in enumerate(self._entries):
            if stat.S_ISREG(entry.mode) and entry.blob("twin") is None:
                yield index, path, entry

    def _room(self) -> None:
        need = sum(length for _, _, entry in self._files() for _, length in entry.data())
        free = shutil.disk_usage(os.fsdecode(self._place)).free
        if need > free:
            raise UsageError(f"the snapshot needs {need} bytes and the place has {free} free")

    def _make(self) -> None:
        for path, entry in self._entries:
            target, kind = self._at(path), stat.S_IFMT(entry.mode)
            if kind == stat.S_IFDIR and path != b".":
                os.mkdir(target, 0o700)
            elif kind == stat.S_IFREG and entry.blob("twin") is None:
                descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                os.truncate(descriptor, entry.size)
                os.close(descriptor)

    def _plan(self) -> dict[int, array[int]]:
        """For each pack, four integers a piece: slot, count, entry, place in the entry's content."""
        plan: dict[int, array[int]] = {}
        for index, _, entry in self._files():
            at = 0
            for place, (first, count) in enumerate(entry.runs()):
                at = at if entry.page else entry.begins[place]
                plan.setdefault(first // SLOTS, array("q")).extend((first % SLOTS, count, index, at))
                at += count * entry.page
        return plan

    def _write(self) -> None:
        plan = self._plan()
        total = len(plan)
        for step, name in enumerate(sorted(plan)):
            self._say(f"pack {step + 1} of {total}")
            slots, flat = self._snapshot.pack(name), plan.pop(name)
            for slot, count, index, at in sorted(zip(*(flat[n::4] for n in range(4)), strict=True)):
                self._piece(slots, (slot, count), index, at)

    def _piece(self, slots: Slots, run: Run, index: int, at: int) -> None:
        path, entry = self._entries[index]
        spans = entry.data()
        left = sum(length for _, length in spans) - at
        lengths = slots.lengths[run[0] : run[0] + run[1]]
        if entry.page:
            wanted = array("I", [entry.page]) * run[1]
            wanted[-1] = min(entry.page, left - entry.page * (run[1] - 1))
            require(lengths == wanted, f"{show(path)} has a page of another length")
        else:
            extents, end = self._extents.setdefault(index, []), at
            for length in lengths:
                extents.append((end, length))
                end += length
        require(
            sum(lengths) <= left and max(lengths, default=0) <= MIB,
            f"{show(path)} has more bytes than its size",
        )
        descriptor = os.open(self._at(path), os.O_WRONLY | os.O_NOFOLLOW)
        try:
            for piece in slots.read(*run):
                for offset, low, high in over(spans, at, len(piece)):
                    done = low
                    while done < high:
                        done += os.pwrite(descriptor, piece[done:high], offset + done - low)
                at += len(piece)
        finally:
            os.close(descriptor)

    def _compare(self) -> None:
        """Reads back what was written and compares every file's digest."""
        id_key = unbase(self._snapshot.tree.head.get("id_key"))
        list_key = derive_list_key(id_key)
        for index, path, entry in self._files():
            spans = entry.data()
            stored = sum(length for _, length in spans)
            extents = page_extents(stored) if entry.page else sorted(self._extents.pop(index, []))
            digests, at = [], 0
            with open(self._at(path), "rb", buffering=0) as file:
                for begin, extent in extents:
                    require(begin == at, f"{show(path)} is not wholly in the store")
                    hasher = blake3.blake3(key=id_key)
                    for offset, low, high in over(spans, at, extent):
                        hasher.update(os.pread(file.fileno(), high - low, offset))
                    digests.append(hasher.digest())
                    at += extent
            require(at == stored, f"{show(path)} is not wholly in the store")
            joined = b"".join(digests)
            found = (
                joined
                if len(digests) == 1
                else blake3.blake3(joined, key=list_key).digest()
                if digests
                else NOTHING
            )
            require(found == entry.digest, f"{show(path)} does not have the digest in the manifest")

    def _link(self) -> None:
        """Whatever could lead out of the tree is made after all that is written through paths."""
        twins: list[tuple[bytes, bytes]] = []
        for path, entry in self._entries:
            target, kind, twin = self._at(path), stat.S_IFMT(entry.mode), entry.blob("twin")
            if twin is not None:
                twins.append((path, twin))
            elif kind == stat.S_IFLNK:
                os.symlink(entry.blob("target") or b"", target)
            elif kind == stat.S_IFIFO:
                os.mkfifo(target, 0o600)
            elif kind in {stat.S_IFCHR, stat.S_IFBLK} and os.geteuid() == 0:
                os.mknod(target, kind | 0o600, number(entry.extra or {}, "device"))
            elif kind not in {stat.S_IFDIR, stat.S_IFREG}:
                self.gaps.append(f"{show(path)}: a socket or device was not made")
        known = {
            path
            for path, entry in self._entries
            if entry.blob("twin") is None and not stat.S_ISDIR(entry.mode)
        }
        for path, twin in twins:
            require(twin in known, f"{show(path)} is a link to something that is not there")
            if os.path.lexists(self._at(twin)):
                os.link(self._at(twin), self._at(path), follow_symlinks=False)

    def _dress(self) -> None:
        """Owner, attributes, mode, times; what lies deeper first, so that a folder's time stays."""
        for path, entry in sorted(self._entries, key=lambda item: (item[0] != b".", item[0]), reverse=True):
            target, link = self._at(path), stat.S_ISLNK(entry.mode)
            if entry.blob("twin") is not None or not os.path.lexists(target):
                continue
            try:
                if os.geteuid() == 0:
                    os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
                for pair in items(entry.extra or {}, "xattrs") if "xattrs" in (entry.extra or {}) else []:
                    if not isinstance(pair, list) or len(pair) != 2:
                        raise CheckError("an extended attribute is no pair")
                    os.setxattr(target, unbase(pair[0]), unbase(pair[1]), follow_symlinks=False)
                if not link:
                    os.chmod(target, stat.S_IMODE(entry.mode))
                os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
            except OSError as error:
                self.gaps.append(f"{show(path)}: {error.strerror}")


def over(spans: Sequence[Run], at: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Where `length` bytes from `at` of a file's content lie: (offset in the file, from and to in those bytes)."""
    start = 0
    for offset, size in spans:
        low, high = max(at, start), min(at + length, start + size)
        if low < high:
            yield offset + low - start, low - at, high - at
        start += size
        if start >= at + length:
            return


def page_extents(stored: int) -> Iterator[Run]:
    for at in range(0, stored, MIB):
        yield at, min(MIB, stored - at)


# -- commands -------------------------------------------------------------------------------------


def list_registers(store: Store, seed: Seed, charter: Charter | None) -> int:
    for register in store.names("r", "[0-9a-f]{32}"):
        chain, others = store.chain(register, charter)
        try:
            head = Snapshot(store, chain, chain[-1], seed).head(chain[-1].manifest, None)
            told = f"{ascii(text(head, 'register'))[1:-1]} ({text(head, 'kind', '[a-z]+')})"
        except CheckError as error:
            told = f"closed to this seed: {error}"
        print(f"{register}  {told}" + (f"  [{others} commits beside the chain]" if others else ""))
        for commit in chain:
            kind = "full" if commit.full else "change"
            print(
                f"  {commit.sequence:>6}  {commit.at}  term {commit.term}  {kind}  {len(commit.packs)} packs"
                f"  {commit.gaps} gaps  epoch {commit.epoch}"
            )
    return 0


def restore(store: Store, seed: Seed, charter: Charter | None, options: argparse.Namespace) -> int:
    target = Path(options.to)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already and not an empty folder")
    if not re.fullmatch("[0-9a-f]{32}", options.register):
        raise UsageError("--register takes the 32 hex digits that 'list' shows")
    chain, _ = store.chain(options.register, charter)
    wanted = chain[-1].sequence if options.sequence is None else options.sequence
    if not 1 <= wanted <= len(chain):
        raise UsageError(f"the register has snapshots 1 to {len(chain)}")
    snapshot = Snapshot(store, chain, chain[wanted - 1], seed)
    if charter is None:
        print("signatures not checked: give the realm's charters with --charter", file=sys.stderr)
    tree = snapshot.fold()
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(mode=0o700, parents=True)
    rebuild = Rebuild(snapshot, os.fsencode(partial), lambda line: print(line, file=sys.stderr))
    try:
        rebuild.run()
        after = own_checks(tree.head, partial, target.absolute())
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    captured = [
        f"{show(unbase(gap['path']))}: {gap.get('why')!a}"
        for gap in items(tree.head, "gaps")
        if isinstance(gap, dict)
    ]
    for gap in captured + rebuild.gaps:
        print(f"gap: {gap}", file=sys.stderr)
    told = f"{ascii(text(tree.head, 'register'))[1:-1]} as of {text(tree.head, 'consistent_at')}"
    print(f"{told} is in {target}: every check passed")
    print(after, end="")
    return 3 if captured or rebuild.gaps else 0


def own_checks(head: Document, place: Path, target: Path) -> str:
    """What the database itself says of the restored files, or how to ask it. `place` is renamed to `target` next."""
    kind, environment = text(head, "kind"), head.get("environment")
    if kind == "sqlite":
        for path in place.iterdir():
            database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
            verdict = database.execute("PRAGMA integrity_check").fetchone()
            database.close()
            require(verdict == ("ok",), f"{path.name} fails SQLite's integrity check")
        return "SQLite's integrity check: ok\n"
    if kind == "postgres" and isinstance(environment, dict):
        return prepare_postgres(environment, place, target)
    return ""


def prepare_postgres(environment: Document, place: Path, target: Path) -> str:
    """A base backup made startable: whole WAL segments, tablespaces beside it, settings that fit any machine."""
    wal, spaces, start = place / "pg_wal", Path(f"{target}-tablespaces"), Path(f"{target}-start")
    listed = place / "tablespace_map"
    require(
        not any(path.is_symlink() for path in (wal, listed, place / "pg_tblspc")),
        "a cluster with links for folders",
    )
    size = number(environment, "wal_segment_bytes", MIB, 1024 * MIB)
    (wal / "archive_status").mkdir(mode=0o700, exist_ok=True)
    for segment in wal.iterdir():
        if re.fullmatch("[0-9A-F]{24}", segment.name) and not segment.is_symlink():
            require(segment.stat().st_size <= size, "a WAL segment is longer than the cluster's")
            os.truncate(segment, size)
    lines = listed.read_bytes().splitlines() if listed.exists() else []
    for line in lines:
        oid = line.partition(b" ")[0].decode("ascii", "replace")
        require(oid.isdecimal(), "the tablespace map cannot be read")
        spaces.mkdir(mode=0o700, exist_ok=True)
        if (place / "pg_tblspc" / oid).is_dir():
            (place / "pg_tblspc" / oid).rename(spaces / oid)
            (place / "pg_tblspc" / oid).symlink_to(spaces / oid)
    if lines:
        oids = [line.partition(b" ")[0].decode() for line in lines]
        listed.write_text("".join(f"{oid} {spaces}/{oid}\n" for oid in oids))
    start.mkdir(mode=0o700)
    (start / "pg_hba.conf").write_text("local all all peer\n")
    (start / "postgresql.conf").write_text(
        f"hba_file = '{start}/pg_hba.conf'\nlisten_addresses = ''\nunix_socket_directories = '{start}'\n"
    )
    version = (place / "PG_VERSION").read_text().strip()
    return (
        f"A data directory of PostgreSQL {version}. Give it to the account that shall serve it:\n"
        f"  chown -R postgres: {target} {start}{f' {spaces}' if lines else ''}\n"
        "Then as that account, with that version's programs:\n"
        f"  pg_verifybackup {'-i tablespace_map ' if lines else ''}{target}\n"
        f"  pg_ctl -D {target} -o '-c config_file={start}/postgresql.conf' -w start\n"
        f"  psql -h {start} -d postgres     # then pg_amcheck -h {start} --all\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="exclave_reader", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("seed", type=Path)
    parser.add_argument(
        "--charter",
        type=Path,
        action="append",
        help="a charter that you trust; signatures are checked. May be repeated",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    command = commands.add_parser("restore")
    command.add_argument("--register", required=True)
    command.add_argument("--sequence", type=int)
    command.add_argument("--to", required=True)
    options = parser.parse_args(arguments)
    try:
        store, seed = Store(options.store), Seed.load(options.seed)
        charter = Charter.load(options.charter) if options.charter else None
        if options.command == "list":
            return list_registers(store, seed, charter)
        return restore(store, seed, charter, options)
    except CheckError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 7
    except (KeyError, OverflowError, TypeError, ValueError, sqlite3.Error, struct.error) as error:
        print(f"refused: the store holds something malformed ({error!r})", file=sys.stderr)
        return 7
    except UsageError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
