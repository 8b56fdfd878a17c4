#!/usr/bin/env python3
"""Restores a register from a sealed store with nothing but this file and the register's joined seed.

Written from docs/spec/store.md (whose sections the comments name) and custody.md, and meant to be read beside them.
Needs Python 3.11, `cryptography` >= 50, `zstandard` and `blake3`.

    python exclave_reader.py STORE SEED_FILE join SHARE_FILE...
    python exclave_reader.py STORE SEED_FILE [--charter CHARTER] list
    python exclave_reader.py STORE SEED_FILE [--charter CHARTER] restore --register ID [--sequence N] --to DIR

STORE is a store laid out as a directory. SEED_FILE holds the 32-byte X-Wing seed of the register's epoch, raw or in
hex; `join` makes it from the decrypted share files of enough custodians. Secrets must be readable by their owner only.
Nothing is believed before it is checked: commits by the hash chain (and by the writer's signatures with --charter),
objects by SHA-256, then capsule, body, tables, folders, root and files. DIR appears only when every check has passed.
Exit: 0 done, 1 failed, 2 usage, 3 done with gaps, 7 a check failed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
import struct
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import blake3
import zstandard
from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa, mlkem, x25519

MIB = SLOTS = 1 << 20  # a chunk's most bytes; a pack's most slots
FRAME_LIMIT, NOTE_LIMIT, BODY_LIMIT = 64 * MIB, 64 * MIB, 256 * MIB
PACK, MANIFEST = 1, 2
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
NO_EXTRA: dict[str, Any] = {}  # of a row that has none; an empty one is another thing
ED25519, MLDSA65 = b"\x01", b"\xffexclave/ml-dsa-65/v1"

Document = dict[str, Any]
Key = tuple[bytes, hpke.MLKEM768X25519PrivateKey]  # SHA-256 of the public key; the private key
Span = tuple[int, int]  # offset, length
Run = tuple[int, int, int]  # where it begins (a page, or a byte of the content), reference, count
Writers = dict[tuple[str, str, str], tuple[str, bytes]]  # realm, register, epoch: who signs, both public keys
Signatures = list[tuple[str, bytes]]  # name; key id and signature
Entries = list[tuple[bytes, "Entry"]]  # by path
Place = tuple[int | None, int | None]  # term and number, where they are known


class CheckError(Exception):
    """A stored byte is not what the specification asks for; nothing of it was used."""


class UsageError(Exception):
    """The command, a secret or the place cannot be used."""


def require(good: object, what: str) -> None:
    if not good:
        raise CheckError(what)


# -- documents (section 2). What is asked of each, beside the tables of the specification ---------------

COUNT, POSITIVE, TEXT = range(1 << 53), range(1, 1 << 53), "(?s).*"
HEX16, HEX32, HEX64, KEY32 = "[0-9a-f]{16}", "[0-9a-f]{32}", "[0-9a-f]{64}", "[A-Za-z0-9+/]{43}="
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
SIZE = range(1, 2 * BODY_LIMIT)  # of an object, compared before it is read
PARTS = [{"id": HEX64, "size": SIZE}]
COMMIT: Document = {  # section 6
    "realm": HEX64, "register": HEX32, "epoch": HEX16, "term": COUNT, "sequence": POSITIVE, "previous": HEX64,
    "at": INSTANT, "manifest": PARTS, "packs": [{"id": HEX64, "number": range(1 << 43), "size": SIZE}], "gaps": COUNT,
}  # fmt: skip
RECORDS: dict[object, Document] = {  # section 5
    "head": {
        "version": range(1, 2), "register": TEXT, "kind": "[a-z]+", "term": COUNT, "sequence": POSITIVE,
        "consistent_at": INSTANT, "parents": PARTS, "depth": range(33), "id_key": KEY32, "environment": {},
        "gaps": [{"path": TEXT, "why": TEXT}], "gone": [TEXT], "root": HEX64,
    },
    "packs": {"rows": COUNT},
    "folder": {
        "path": TEXT, "rows": COUNT, "names": COUNT, "removed": [TEXT], "extras": {}, "runs": COUNT,
        "digest": HEX64,
    },
}  # fmt: skip
WRITER = {"id": HEX32, "epoch": HEX16, "writer": {"name": "[A-Za-z0-9._-]{1,64}", "key": TEXT}}
CHARTER = {"realm": HEX64, "registers": [WRITER]}  # custody.md, section 2
SHARE: Document = {  # custody.md, section 4
    "set": HEX32, "key": HEX64, "threshold": range(2, 17), "x": range(16), "share": KEY32,
}  # fmt: skip


def shaped(value: Any, shape: Any, key: str = "document") -> Any:
    """`value` if it has the shape: a text's pattern, a number's range, [shape of each], {key: shape of its value}."""
    if isinstance(shape, str):
        good = isinstance(value, str) and re.fullmatch(shape, value) is not None
    elif isinstance(shape, range):
        good = type(value) is int and value in shape  # a bool is no number here
    else:
        good = type(value) is type(shape)
    require(good, f"a document has no good '{key}'")
    for item in value if isinstance(shape, list) else []:
        shaped(item, shape[0], key)
    for name, inner in shape.items() if isinstance(shape, dict) else []:
        shaped(value.get(name), inner, name)
    return value


def integer(digits: str) -> int:
    good = digits.removeprefix("-").isdecimal() and abs(int(digits)) < 1 << 53
    require(good, "a document has a number that is not an integer below 2^53")
    return int(digits)


def spell(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse(raw: bytes, shape: Document) -> Document:
    try:
        found = json.loads(raw, parse_int=integer, parse_float=integer, parse_constant=integer)
        same = spell(found) == raw  # nor can any key be there twice
    except (ValueError, RecursionError) as error:
        raise CheckError("a document cannot be read") from error
    require(same, "a document is not spelled canonically")
    return shaped(found, shape)  # type: ignore[no-any-return]


def unbase(value: str) -> bytes:
    raw = base64.b64decode(value, validate=True)
    require(base64.b64encode(raw).decode() == value, "a document has bytes that are not padded base64")
    return raw


def lp(*parts: bytes) -> bytes:
    return b"".join(piece for part in parts for piece in (struct.pack(">I", len(part)), part))


# -- notes and charters (section 2; custody.md, section 2) ----------------------------------------------


def read_note(raw: bytes, kind: bytes, shape: Document) -> tuple[bytes, Document, Signatures]:
    """The text that is signed, its document, and what the signature lines say."""
    body, _, tail = raw.rpartition(b"\n\n")
    body += b"\n"
    require(tail.endswith(b"\n") and body.count(b"\n") == 2, "a note is not a note")
    require(body.startswith(kind + b"\n"), "a note is of another type")
    signatures = []
    for line in tail.decode().split("\n")[:-1]:
        dash, name, encoded = line.split(" ") if line.count(" ") == 2 else ("", "", "")
        require(dash == "\u2014" and name, "a note has a broken signature line")
        signatures.append((name, unbase(encoded)))
    return body, parse(body.split(b"\n")[1], shape), signatures


def load_charters(paths: Sequence[Path]) -> Writers:
    """Who writes which epoch, from charters that the caller trusts."""
    writers: Writers = {}
    for path in paths:
        body, document, _ = read_note(path.read_bytes(), b"exclave/charter/v1", CHARTER)
        realm = document["realm"]
        if realm == "0" * 64:  # the first charter cannot name itself: the realm is the hash of its text
            realm = hashlib.sha256(body).hexdigest()
        for entry in document["registers"]:
            keys = unbase(entry["writer"]["key"])
            writers[realm, entry["id"], entry["epoch"]] = (entry["writer"]["name"], keys)
    return writers


def check_signatures(commit: Document, body: bytes, signatures: Signatures, writers: Writers) -> None:
    where = (commit["realm"], commit["register"], commit["epoch"])
    require(where in writers, f"the charters name no writer of epoch {where[2]} of this realm's register")
    name, keys = writers[where]
    for kind, key in ((ED25519, keys[:32]), (MLDSA65, keys[32:])):
        key_id = hashlib.sha256(name.encode() + b"\n" + kind + key).digest()[:4]
        mine = [raw[4:] for signer, raw in signatures if signer == name and raw[:4] == key_id]
        require(len(mine) == 1, "a commit lacks one of its writer's two signatures")
        try:
            if kind == ED25519:
                ed25519.Ed25519PublicKey.from_public_bytes(key).verify(mine[0], body)
            else:
                known = mldsa.MLDSA65PublicKey.from_public_bytes(key)
                known.verify(mine[0], body, context=b"exclave/note/v1")
        except InvalidSignature as error:
            raise CheckError("a commit's signature is not its writer's") from error


# -- the store and its commits (sections 1 and 6) -------------------------------------------------------


def read(store: Path, name: str, part: Document | None = None) -> bytes:
    """A note, or the object of a part, whose size is compared before anything is allocated and then its SHA-256."""
    try:
        descriptor = os.open(store / name, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise CheckError(f"{name} is missing: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        right = size <= NOTE_LIMIT if part is None else size == part["size"]
        require(right, f"{name} has {size} bytes instead of {part['size'] if part else 'a few'}")
        raw = file.read(size)
    right = part is None or hashlib.sha256(raw).hexdigest() == part["id"]
    require(right, f"{name} does not have that SHA-256")
    return raw


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(n for n in os.listdir(folder) if re.fullmatch(pattern, n)) if folder.is_dir() else []


def chain_of(store: Path, register: str, writers: Writers | None) -> tuple[list[Document], int]:
    """The commits up to the newest, oldest first, each checked; and how many others lie beside the chain.

    Refuses where the newest commit's chain is broken: an older snapshot is no answer nobody asked for.
    """
    found: dict[str, Document] = {}
    top = f"r/{register}/commit"
    for term in names(store / top, "[0-9a-f]{8}"):
        for sequence in names(store / top / term, HEX16):
            raw = read(store, f"{top}/{term}/{sequence}")
            body, commit, signatures = read_note(raw, b"exclave/commit/v1", COMMIT)
            where = (register, int(term, 16), int(sequence, 16))
            same = (commit["register"], commit["term"], commit["sequence"]) == where
            require(same, "a commit lies under another's name")
            if writers is not None:
                check_signatures(commit, body, signatures, writers)
            found[hashlib.sha256(raw).hexdigest()] = commit
    require(found, f"the store has no commit of register {register}")
    chain = [max(found.values(), key=lambda commit: (commit["term"], commit["sequence"]))]
    while (newer := chain[-1])["sequence"] > 1:
        require(newer["previous"] in found, f"the commit before commit {newer['sequence']} is missing")
        older = found[newer["previous"]]
        follows = older["sequence"] == newer["sequence"] - 1 and older["term"] <= newer["term"]
        require(follows and older["realm"] == newer["realm"], "a commit does not follow the one it names")
        chain.append(older)
    require(chain[-1]["previous"] == "0" * 64, "the first commit names one before it")
    return chain[::-1], len(found) - len(chain)


# -- containers (section 3) -----------------------------------------------------------------------------


def key_pair(seed: bytes) -> Key:
    x = hashlib.shake_256(seed).digest(96)
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(x[:64])
    curve = x25519.X25519PrivateKey.from_private_bytes(x[64:])
    public = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return hashlib.sha256(public).digest(), hpke.MLKEM768X25519PrivateKey(kem, curve)


def open_container(raw: bytes, kind: int, commit: Document, where: Place, key: Key) -> bytes:
    """The plaintext of a pack or manifest part of `commit`'s register and epoch, of this term and number if known."""
    require(len(raw) >= 88 and raw[:8] == b"exclave\x01", "an object is not a container")
    found_kind, suite, recipients, zero, size = struct.unpack_from(">BBBBI", raw, 8)
    require((found_kind, suite, zero) == (kind, 1, 0), "a container is of another kind or suite")
    require(1 <= recipients <= 4, "a container has an impossible number of recipients")
    e = size.bit_length() - 4
    require(4096 <= size <= BODY_LIMIT and size >> e << e == size, "a container's size is no size class")
    start = 88 + 1184 * recipients
    length = start + 56 + size + 16 * (size // 16384 + 1)
    require(len(raw) == length, "a container is longer or shorter than it says")
    identity = bytes.fromhex(commit["realm"] + commit["register"] + commit["epoch"])
    require(raw[16:72] == identity, "a container belongs to another realm, register or epoch")
    found = struct.unpack_from(">QQ", raw, 72)
    same = all(wanted in {None, is_} for wanted, is_ in zip(where, found, strict=True))
    require(same and found[0] <= commit["term"], "a container bears another term or number")
    recipient = key[0][:16]
    capsules = {raw[at : at + 16]: raw[at + 16 : at + 1184] for at in range(88, start, 1184)}
    require(recipient in capsules, "this seed is not a recipient: it is of another register or epoch")
    suite_1 = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    try:
        info = lp(b"exclave/capsule/v1", raw[:88], recipient)
        content_key = suite_1.decrypt(capsules[recipient], key[1], info=info)
        decryptor = Cobblestone256Decryptor(content_key, lp(b"exclave/body/v1", raw[:88]))
        plain = b"".join((decryptor.update(memoryview(raw)[start:]), decryptor.finalize()))
    except (InvalidTag, ValueError) as error:
        raise CheckError("a container does not open under this seed") from error
    return plain


def inflate(stored: memoryview, raw_size: int) -> bytes:
    """Exactly `raw_size` bytes, which the caller has bounded; the size in a zstd header is not believed."""
    if len(stored) == raw_size:
        return bytes(stored)
    try:
        claimed = zstandard.get_frame_parameters(stored).content_size
        require(claimed in {raw_size, zstandard.CONTENTSIZE_UNKNOWN}, "a frame lies about its length")
        decompressor, room = zstandard.ZstdDecompressor(), max(raw_size, 1)
        raw = decompressor.decompress(stored, max_output_size=room, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CheckError("a frame cannot be decompressed") from error
    require(len(raw) == raw_size, "a frame has another length than its table says")
    return raw


class Slots:
    """The slots of an opened container (section 3.1); a frame is inflated when asked for, and the last one kept."""

    def __init__(self, plain: bytes) -> None:
        stored, raw_size = struct.unpack(">II", plain[-8:])
        end = len(plain) - 8 - stored
        require(end >= 0 and 8 <= raw_size <= 8 + 20 * SLOTS, "a table of contents has impossible bounds")
        self._plain = memoryview(plain)
        table = inflate(self._plain[end:-8], raw_size)
        frames, slots = struct.unpack_from("<II", table)
        fits = raw_size == 8 + 16 * frames + 4 * slots and max(frames, slots) <= SLOTS
        require(fits, "a table of contents has another length than it counts")
        numbers = struct.unpack_from(f"<{4 * frames + slots}I", table, 8)
        offsets, stores, raws, firsts = (numbers[n * frames : (n + 1) * frames] for n in range(4))
        self._frames = list(zip(offsets, stores, raws, strict=True))
        self._first, self.lengths = [*firsts, slots], numbers[4 * frames :]
        self._starts = [0, *accumulate(self.lengths)]  # as if all frames were one
        require(self._first[0] == 0, "a table of contents leaves out its first slots")
        at = 0
        for (offset, size, raw), (low, high) in zip(self._frames, pairwise(self._first), strict=True):
            bounded = at <= offset and offset + size <= end and raw <= FRAME_LIMIT and low <= high <= slots
            require(bounded, "a frame is out of bounds")
            require(self._starts[high] - self._starts[low] == raw, "slots do not fill their frame")
            at = offset + size
        require(plain.count(0, at, end) == end - at, "a container's padding is not zeros")
        self._kept, self._raw = -1, b""

    def read(self, slot: int, count: int) -> Iterator[memoryview]:
        """The bytes of `count` slots from `slot` on, a piece for each frame that they lie in."""
        require(slot + count <= len(self.lengths), "a reference goes beyond its pack")
        while count:
            frame = bisect_right(self._first, slot) - 1
            if frame != self._kept:
                offset, size, raw_size = self._frames[frame]
                self._kept, self._raw = frame, inflate(self._plain[offset : offset + size], raw_size)
            upto = min(slot + count, self._first[frame + 1])
            low, start, end = (self._starts[slot_] for slot_ in (self._first[frame], slot, upto))
            yield memoryview(self._raw)[start - low : end - low]
            slot, count = upto, slot + count - upto


# -- the manifest (sections 4 and 5) --------------------------------------------------------------------


class Entry(NamedTuple):
    """One row of a folder."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    page: int
    digest: bytes
    runs: list[Run]
    extra: Document

    def spans(self) -> list[Span]:
        """Where a file's content lies in it; the rest are holes. A further hard link has no content."""
        if not stat.S_ISREG(self.mode) or "twin" in self.extra:
            return []
        found = [(offset, length) for offset, length in self.extra.get("holes", [(0, self.size)])]
        edges = [0, *(edge for offset, length in found for edge in (offset, offset + length)), self.size]
        require(all(low <= high for low, high in pairwise(edges)), "a sparse file's list is broken")
        return found


def columns(raw: bytes, widths: Sequence[int]) -> list[bytes]:
    """A record's columns; together they are the record."""
    require(sum(widths) == len(raw), "a record is longer or shorter than its columns")
    return [raw[end - width : end] for width, end in zip(widths, accumulate(widths), strict=True)]


def i64(column: bytes) -> Sequence[int]:
    return struct.unpack(f"<{len(column) // 8}q", column)


def laid_over(base: Sequence[Run], patches: Sequence[Run], pages: int) -> list[Run]:
    """`base` cut or extended to `pages`, with each patch in its place; on runs, never on single pages."""
    laid: list[Run] = []
    at = 0
    for page, reference, count in [*patches, (pages, 0, 0)]:
        require(at <= page, "patches overlap or go beyond the file")
        index = max(bisect_right(base, at, key=lambda run: run[0]) - 1, 0)
        while at < page and index < len(base):  # what of the base lies before the patch
            begin, first, length = base[index]
            taken = min(begin + length, page) - at
            if taken > 0:
                laid.append((at, first + at - begin, taken))
                at += taken
            index += 1
        require(at == page, "a page was added and not given")
        if count:
            laid.append((page, reference, count))
            at += count
    return laid


def placed(entry: Entry, before: Entry | None) -> Entry:
    """The entry with its whole content in its runs; `before` is what it patches, None if it is whole already."""
    content = sum(length for _, length in entry.spans())
    require(before is None or 0 < entry.page == before.page, "a patch has nothing to stand on")
    if entry.page:
        base = before.runs if before else []
        return entry._replace(runs=laid_over(base, entry.runs, -(-content // entry.page)))
    edges = [*(begin for begin, _, _ in entry.runs), content]
    require(all(low < high for low, high in pairwise(edges)), "a file's runs are out of order")
    require(edges[0] == 0, "a file's content does not begin with a run")
    return entry


def show(path: bytes) -> str:
    """A path fit for a terminal."""
    return ascii(path.decode("utf-8", "surrogateescape"))[1:-1]


class Snapshot:
    """One commit's manifest, folded from the full one that it stands on; and its packs."""

    def __init__(self, store: Path, chain: Sequence[Document], commit: Document, key: Key) -> None:
        self._store, self.commit, self._key = store, commit, key
        self._base = f"r/{commit['register']}/{commit['epoch']}"
        older = (pack for one in chain[: commit["sequence"]] for pack in one["packs"])
        self._sealed = {(pack["number"], pack["id"], pack["size"]) for pack in older}
        self._packs: dict[int, tuple[str, int]] = {}
        self._folders: dict[bytes, dict[bytes, Entry]] = {}
        self._digests: dict[bytes, str] = {}
        self.head: Document = {}
        self.id_key = self.list_key = b""

    def records(self, parts: list[Document], where: Place) -> Iterator[tuple[Document, bytes]]:
        """Each record's document and columns; the last one is the head."""
        ended = False
        for part in parts:
            raw = read(self._store, f"{self._base}/manifest/{part['id']}", part)
            slots = Slots(open_container(raw, MANIFEST, self.commit, where, self._key))
            for slot in range(len(slots.lengths)):
                require(not ended, "a record follows the head")
                record = b"".join(slots.read(slot, 1))
                (length,) = struct.unpack_from(">I", record)
                require(length <= len(record) - 4, "a record's document goes beyond it")
                document = parse(record[4 : 4 + length], {"record": "head|packs|folder"})
                ended = document["record"] == "head"
                yield shaped(document, RECORDS[document["record"]]), record[4 + length :]
        require(ended, "a manifest does not end in its head")

    def read_head(self, parts: list[Document], where: Place) -> Document:
        return deque(self.records(parts[-1:], where), maxlen=1)[0][0]

    def fold(self, parts: list[Document], newer: Document | None = None) -> None:
        """Applies a manifest, after those that it stands on; `newer` is the head of the one that stands on it."""
        where = (self.commit["term"], self.commit["sequence"])
        head = self.read_head(parts, (None, None) if newer else where)
        place, parents = (head["term"], head["sequence"]), head["parents"]
        if newer is None:
            require(place == where, "a manifest is not the one of its commit")
        else:
            older = place < (newer["term"], newer["sequence"])
            require(
                older and head["depth"] == newer["depth"] - 1, "a manifest stands on one of another depth"
            )
        require((head["depth"] == 0) == (not parents), "a manifest chain has another depth than it says")
        if parents:
            self.fold(parents, head)
        self.head, told = head, dict[bytes, list[bytes]]()
        for path in map(unbase, head["gone"]):
            require(self._folders.pop(path, None) is not None, "a folder went that was not there")
        for document, rest in self.records(parts, place):
            if document["record"] == "folder":
                self._folder(document, rest, told)
            else:  # the head has no columns
                self._pack_list(document.get("rows", 0), rest)

    def _pack_list(self, rows: int, rest: bytes) -> None:
        numbers, ids, sizes = columns(rest, [8 * rows, 32 * rows, 8 * rows])
        for row, (number, size) in enumerate(zip(i64(numbers), i64(sizes), strict=True)):
            pack = (ids[32 * row : 32 * row + 32].hex(), size)
            require(self._packs.setdefault(number, pack) == pack, "two packs have one number")

    def _folder(self, document: Document, rest: bytes, told: dict[bytes, list[bytes]]) -> None:
        """Applies a folder's record; `told` is the last name of each folder that this manifest has told already."""
        n, r, path, extras = document["rows"], document["runs"], unbase(document["path"]), document["extras"]
        widths = [document["names"], *[8 * n] * 6, n, 8 * n, 8 * r, 8 * r, 8 * r, 32 * n]
        joined, *attributes, patched, counts, steps, lengths, places, digests = columns(rest, widths)
        rows = joined.split(b"\0")
        require(rows.pop() == b"" and len(rows) == n, "a folder's names are not as many as its rows")
        ordered = told.get(path, []) + rows
        require(all(low < high for low, high in pairwise(ordered)), "a folder's names are not sorted")
        again = document["digest"] == self._digests.get(path) and not document["removed"]
        require(path not in told or again, "a folder's second record contradicts its first")
        told[path], self._digests[path] = ordered[-1:], document["digest"]
        entries = self._folders.setdefault(path, {})
        for name in document["removed"]:
            require(entries.pop(unbase(name), None) is not None, "an entry went that was not there")
        require(extras.keys() <= {str(row) for row in range(n)}, "an extra belongs to no row")
        runs = list(zip(i64(places), accumulate(i64(steps)), i64(lengths), strict=True))
        inside = all(first >= 0 and 0 < count <= SLOTS - first % SLOTS for _, first, count in runs)
        require(inside, "a run leaves its pack")
        every = i64(counts)
        require(min(every, default=0) >= 0 and sum(every) == r, "a folder has runs that belong to no row")
        values, left = zip(*map(i64, attributes), strict=True), iter(runs)
        for row, (name, of) in enumerate(zip(rows, values, strict=True)):
            extra, digest = extras.get(str(row), NO_EXTRA), digests[32 * row : 32 * row + 32]
            own = list(islice(left, every[row]))
            entry = Entry._make((*of, digest, own, shaped(extra, {}, "extras")))
            possible = entry.mode >= 0 and entry.size >= 0 and 0 <= entry.page <= MIB and patched[row] <= 1
            require(possible, "a row has impossible attributes")
            require(not patched[row] or name in entries, "a patch has nothing to stand on")
            entries[name] = placed(entry, entries[name] if patched[row] else None)

    def check(self) -> Entries:
        """All entries by path, after the digests of all folders, their names and places in the tree, and the root."""
        self.id_key, hashed, found = unbase(self.head["id_key"]), list[bytes](), Entries()
        self.list_key = blake3.blake3(self.id_key, derive_key_context="exclave/file-digest/v1").digest()
        for path in sorted(self._folders):
            entries = sorted(self._folders[path].items())
            rows = [entry for _, entry in entries]
            numbers = [entry[field] for field in range(5) for entry in rows]
            told = b"".join(name + b"\0" for name, _ in entries), struct.pack(f"<{len(numbers)}q", *numbers)
            extras = {str(row): entry.extra for row, entry in enumerate(rows) if entry.extra is not NO_EXTRA}
            parts = lp(path, *told, b"".join(entry.digest for entry in rows), spell(extras))
            digest = blake3.blake3(parts, key=self.list_key).digest()
            require(digest.hex() == self._digests[path], f"folder {show(path)} does not have its digest")
            hashed += [path, digest]
            for name, _ in entries:
                harmless = b"/" not in name and name not in {b"", b".."} and (name != b"." or not path)
                require(harmless, "a harmful name")
            parent, _, own = path.rpartition(b"/")
            above = self._folders.get(parent, {}).get(own or b".")
            hangs = above is not None and stat.S_ISDIR(above.mode)
            require(hangs and (parent + b"/" + own).lstrip(b"/") == path, "a folder hangs in no other folder")
            entries.sort(key=lambda item: item[0] != b".")  # the top folder's own row comes first
            found += [((path + b"/" + name).lstrip(b"/"), entry) for name, entry in entries]
        root = blake3.blake3(lp(*hashed), key=self.list_key).hexdigest()
        require(found and root == self.head["root"], "the manifest does not have its own root")
        return found

    def pack(self, number: int) -> Slots:
        name, size = self._packs.get(number, ("", 0))
        require((number, name, size) in self._sealed, f"pack {number} is in no commit up to this one")
        raw = read(self._store, f"{self._base}/pack/{name[:2]}/{name}", {"id": name, "size": size})
        return Slots(open_container(raw, PACK, self.commit, (None, number), self._key))


# -- rebuilding (section 7): into a folder that nobody else can see yet ---------------------------------


def over(spans: Sequence[Span], at: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Where `length` bytes from `at` of a file's content lie: (offset in the file, from and to in those bytes)."""
    for (offset, size), end in zip(spans, accumulate(size for _, size in spans), strict=True):
        low, high = max(at, end - size), min(at + length, end)
        if low < high:
            yield offset + low - (end - size), low - at, high - at


def write(snapshot: Snapshot, files: Entries, place: bytes) -> dict[bytes, list[Span]]:
    """Writes every file, opening each pack once; returns the chunks of files that are not cut by page."""
    plan: dict[int, list[tuple[int, int, int, int]]] = {}
    chunks: dict[bytes, list[Span]] = {}
    for index, (_, entry) in enumerate(files):
        for begin, first, count in entry.runs:
            piece = (first % SLOTS, count, index, begin * (entry.page or 1))
            plan.setdefault(first // SLOTS, []).append(piece)
    for step, number in enumerate(sorted(plan), 1):
        print(f"pack {step} of {len(plan)}", file=sys.stderr)
        slots = snapshot.pack(number)
        for slot, count, index, begin in sorted(plan[number]):
            (path, entry), lengths, at = files[index], slots.lengths[slot : slot + count], begin
            spans, begins = entry.spans(), accumulate(lengths, initial=at)
            if not entry.page:
                chunks.setdefault(path, []).extend(zip(begins, lengths, strict=False))
            with open(place + b"/" + path, "r+b", buffering=0) as file:
                for data in slots.read(slot, count):
                    for offset, low, high in over(spans, at, len(data)):
                        done = low
                        while done < high:
                            done += os.pwrite(file.fileno(), data[done:high], offset + done - low)
                    at += len(data)
    return chunks


def compare(snapshot: Snapshot, path: bytes, entry: Entry, place: bytes, chunks: list[Span]) -> None:
    """Reads back what was written of a file and compares its digest (section 4)."""
    spans, at, digests = entry.spans(), 0, list[bytes]()
    stored = sum(size for _, size in spans)
    mibs = [(begin, min(MIB, stored - begin)) for begin in range(0, stored, MIB)] if entry.page else []
    with open(place + b"/" + path, "rb", buffering=0) as file:
        for _, length in mibs or sorted(chunks):
            pieces = (os.pread(file.fileno(), high - low, to) for to, low, high in over(spans, at, length))
            digests.append(blake3.blake3(b"".join(pieces), key=snapshot.id_key).digest())
            at += length
    require(at == stored, f"{show(path)} is not wholly in the store")
    found = b"".join(digests) or bytes(32)
    if len(digests) > 1:
        found = blake3.blake3(found, key=snapshot.list_key).digest()
    require(found == entry.digest, f"{show(path)} does not have the digest in the manifest")


def make(snapshot: Snapshot, entries: Entries, place: bytes) -> None:
    """Makes all folders and files, and checks them."""
    regular = (item for item in entries if stat.S_ISREG(item[1].mode))
    files = [(path, entry) for path, entry in regular if "twin" not in entry.extra]
    need = sum(length for _, entry in files for _, length in entry.spans())
    if need > (free := shutil.disk_usage(place).free):
        raise UsageError(f"the snapshot needs {need} bytes and the place has {free} free")
    for path, entry in entries[1:]:  # the first is the top folder, which is there
        if stat.S_ISDIR(entry.mode):
            os.mkdir(place + b"/" + path, 0o700)
    for path, entry in files:
        descriptor = os.open(place + b"/" + path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        os.truncate(descriptor, entry.size)
        os.close(descriptor)
    chunks = write(snapshot, files, place)
    for path, entry in files:
        compare(snapshot, path, entry, place, chunks.get(path, []))


def dress(entries: Entries, place: bytes) -> list[str]:
    """Links, devices and attributes, last because they could lead elsewhere; returns what could not be made."""
    root, gaps = os.geteuid() == 0, list[str]()
    known = {path for path, entry in entries if "twin" not in entry.extra and not stat.S_ISDIR(entry.mode)}
    for path, entry in sorted(entries, key=lambda item: "twin" in item[1].extra):
        target, kind, twin = place + b"/" + path, stat.S_IFMT(entry.mode), entry.extra.get("twin")
        if twin is not None:
            require(unbase(twin) in known, f"{show(path)} is a link to something that is not there")
            if os.path.lexists(place + b"/" + unbase(twin)):
                os.link(place + b"/" + unbase(twin), target, follow_symlinks=False)
        elif kind == stat.S_IFLNK:
            os.symlink(unbase(entry.extra["target"]), target)
        elif kind == stat.S_IFIFO:
            os.mkfifo(target, 0o600)
        elif kind in {stat.S_IFCHR, stat.S_IFBLK} and root:
            os.mknod(target, kind | 0o600, entry.extra["device"])
        elif kind not in {stat.S_IFDIR, stat.S_IFREG}:
            gaps.append(f"{show(path)}: a socket or device was not made")
    for path, entry in reversed(entries):  # what lies in a folder before the folder itself
        target = place + b"/" + path
        if "twin" in entry.extra or not os.path.lexists(target):
            continue
        try:
            if root:
                os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
            for name, value in entry.extra.get("xattrs", []):
                os.setxattr(target, unbase(name), unbase(value), follow_symlinks=False)
            if not stat.S_ISLNK(entry.mode):
                os.chmod(target, stat.S_IMODE(entry.mode))
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)
        except OSError as error:
            gaps.append(f"{show(path)}: {error.strerror}")
    return gaps


# -- what databases ask for (sections 7 and 9) ----------------------------------------------------------


def check_sqlite(place: Path) -> str:
    for path in place.iterdir():
        database = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        verdict = database.execute("PRAGMA integrity_check").fetchone()
        database.close()
        require(verdict == ("ok",), f"{path.name} fails SQLite's integrity check")
    return "SQLite's integrity check: ok\n"


def prepare_postgres(place: Path, target: Path, wal_segment_bytes: object) -> str:
    """Makes a base backup startable anywhere, before `place` is renamed to `target`; returns how to start it."""
    names_ = ("pg_wal", "tablespace_map", "pg_tblspc", "PG_VERSION")
    wal, listed, links, version = paths = [place / name for name in names_]
    require(not any(path.is_symlink() for path in paths), "a cluster has links for folders")
    size = shaped(wal_segment_bytes, range(MIB, 1024 * MIB + 1), "wal_segment_bytes")
    (wal / "archive_status").mkdir(mode=0o700, exist_ok=True)
    for segment in wal.iterdir():
        if re.fullmatch("[0-9A-F]{24}", segment.name) and not segment.is_symlink():
            require(segment.stat().st_size <= size, "a WAL segment is longer than the cluster's")
            os.truncate(segment, size)
    spaces, start = Path(f"{target}-tablespaces"), Path(f"{target}-start")
    oids = [line.split()[0].decode() for line in listed.read_bytes().splitlines()] if listed.exists() else []
    for oid in oids:
        require(oid.isdecimal(), "the tablespace map cannot be read")
        spaces.mkdir(mode=0o700, exist_ok=True)
        (links / oid).rename(spaces / oid)
        (links / oid).symlink_to(spaces / oid)
    if oids:
        listed.write_text("".join(f"{oid} {spaces}/{oid}\n" for oid in oids))
    start.mkdir(mode=0o700)
    if os.path.lexists(place / "postgresql.auto.conf"):
        (place / "postgresql.auto.conf").rename(start / "home.auto.conf")
    (place / "recovery.signal").touch(mode=0o600, exist_ok=False)
    (start / "pg_hba.conf").write_text("local all all peer\n")
    (start / "postgresql.conf").write_text(
        f"hba_file = '{start}/pg_hba.conf'\nlisten_addresses = ''\nunix_socket_directories = '{start}'\n"
        "restore_command = 'false'\nhot_standby = off\n"
    )
    return f"""A data directory of PostgreSQL {version.read_text().strip()}. Give it to the account that shall serve it:
  chown -R postgres: {target} {start}{f" {spaces}" if oids else ""}
Then as that account, with that version's programs:
  pg_verifybackup {"-i tablespace_map " if oids else ""}{target}
  pg_ctl -D {target} -o '-c config_file={start}/postgresql.conf' -w start
  psql -h {start} -d postgres     # as soon as recovery has ended; then pg_amcheck -h {start} --all
"""


# -- secrets (custody.md, section 4) --------------------------------------------------------------------


def private(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode) or mode & 0o077:
            raise UsageError(f"{path} can be read by others; make it private first: chmod 600 {path}")
        return file.read(4096)


def load_seed(path: Path) -> Key:
    seed = private(path)
    if re.fullmatch(rb"[0-9a-fA-F]{64}\s*", seed):
        seed = bytes.fromhex(seed.decode())
    if len(seed) != 32:
        raise UsageError(f"{path} must hold 32 bytes, raw or in hex")
    return key_pair(seed)


def multiply(a: int, b: int) -> int:
    """In GF(256), without a table or branch that depends on a secret."""
    product = 0
    for _ in range(8):
        product ^= -(b & 1) & a
        a, b = (a << 1) ^ (-(a >> 7) & 0x11B), b >> 1
    return product


def join(options: argparse.Namespace) -> int:
    """Makes the seed's file. The digest of SLIP-39 is not looked at: the register's own key says more."""
    shares, sets = dict[int, bytes](), set[tuple[str, str, int]]()
    for path in options.shares:
        kind, _, line = private(path).partition(b"\n")
        require(kind == b"exclave/share/v1", f"{path} is no decrypted share file")
        found = parse(line.removesuffix(b"\n"), SHARE)
        shares[found["x"]] = unbase(found["share"])
        sets.add((found["set"], found["key"], found["threshold"]))
    require(len(sets) == 1, "these shares are not of one set")
    (_, key, threshold) = sets.pop()
    require(len(shares) >= threshold, f"{threshold} custodians' shares are needed, {len(shares)} are here")
    seed = bytearray(32)
    for x, share in shares.items():  # Lagrange, at x = 255
        weight = 1
        for other in shares.keys() - {x}:
            weight = multiply(weight, 255 ^ other)
            for _ in range(254):  # a^254 is the inverse of a
                weight = multiply(weight, x ^ other)
        for at, byte in enumerate(share):
            seed[at] ^= multiply(weight, byte)
    require(key_pair(bytes(seed))[0].hex() == key, "the joined seed is not the register's: a share is wrong")
    with open(os.open(options.seed, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(seed)
    print(f"{options.seed} opens the register's epoch: destroy it when all is restored")
    return 0


# -- commands -------------------------------------------------------------------------------------------


def list_registers(store: Path, key: Key, writers: Writers | None) -> int:
    for register in names(store / "r", HEX32):
        chain, others = chain_of(store, register, writers)
        newest = chain[-1]
        try:
            place = (newest["term"], newest["sequence"])
            head = Snapshot(store, chain, newest, key).read_head(newest["manifest"], place)
            told = f"{ascii(head['register'])[1:-1]} ({head['kind']})"
        except CheckError as error:
            told = f"closed to this seed: {error}"
        print(f"{register}  {told}" + (f"  [{others} commits beside the chain]" if others else ""))
        for commit in chain:
            kind = "full" if commit.get("full") is True else "change"
            print(
                f"  {commit['sequence']:>6}  {commit['at']}  term {commit['term']}  {kind}"
                f"  {len(commit['packs'])} packs  {commit['gaps']} gaps  epoch {commit['epoch']}"
            )
    return 0


def restore(store: Path, key: Key, writers: Writers | None, options: argparse.Namespace) -> int:
    target: Path = options.to.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already and not an empty folder")
    if not re.fullmatch(HEX32, options.register):
        raise UsageError("--register takes the 32 hex digits that 'list' shows")
    chain, _ = chain_of(store, options.register, writers)
    wanted = len(chain) if options.sequence is None else options.sequence
    if not 1 <= wanted <= len(chain):
        raise UsageError(f"the register has snapshots 1 to {len(chain)}")
    if writers is None:
        print("signatures not checked: give the realm's charters with --charter", file=sys.stderr)
    snapshot = Snapshot(store, chain, chain[wanted - 1], key)
    snapshot.fold(snapshot.commit["manifest"])
    entries, head, after = snapshot.check(), snapshot.head, ""
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(mode=0o700, parents=True)
    try:
        make(snapshot, entries, os.fsencode(partial))
        gaps = dress(entries, os.fsencode(partial))
        if head["kind"] == "sqlite":
            after = check_sqlite(partial)
        elif head["kind"] == "postgres":
            after = prepare_postgres(partial, target, head["environment"].get("wal_segment_bytes"))
        if target.exists():
            target.rmdir()
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    gaps = [f"{show(unbase(gap['path']))}: {gap['why']!a}" for gap in head["gaps"]] + gaps
    for gap in gaps:
        print(f"gap: {gap}", file=sys.stderr)
    print(f"{ascii(head['register'])[1:-1]} as of {head['consistent_at']} is in {target}: every check passed")
    print(after, end="")
    return 3 if gaps else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="exclave_reader", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("seed", type=Path)
    parser.add_argument("--charter", type=Path, action="append", help="one that you trust; may be repeated")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("join").add_argument("shares", type=Path, nargs="+")
    commands.add_parser("list")
    command = commands.add_parser("restore")
    command.add_argument("--register", required=True)
    command.add_argument("--sequence", type=int)
    command.add_argument("--to", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        if options.command == "join":
            return join(options)
        key, writers = load_seed(options.seed), load_charters(options.charter) if options.charter else None
        if options.command == "list":
            return list_registers(options.store, key, writers)
        return restore(options.store, key, writers, options)
    except CheckError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 7
    except (*MALFORMED, sqlite3.Error, struct.error) as error:
        print(f"refused: something is malformed ({error!r})", file=sys.stderr)
        return 7
    except UsageError as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
