"""A second writer of sealed stores, written from docs/spec/store.md alone, to try the stand-alone reader with."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3
import zstandard
from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

AT = "2026-03-01T12:00:00.000000001Z"
MLDSA = b"\xffexclave/ml-dsa-65/v1"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def spell(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def lp(*parts: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def column(values: list[int]) -> bytes:
    return array("q", values).tobytes()


def record(document: dict[str, Any], *columns: bytes) -> bytes:
    spelled = spell(document)
    return struct.pack(">I", len(spelled)) + spelled + b"".join(columns)


@dataclass
class Row:
    """An entry as the specification has it. `runs` are (reference, count), `at` where they begin in the content
    (one run, and whole paged files, begin by themselves); `patched` rows name pages.
    """

    mode: int
    size: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)
    digest: bytes = bytes(32)
    page: int = 0
    at: list[int] | None = None
    patched: bool = False
    extra: dict[str, Any] | None = None
    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    mtime: int = 1_700_000_000_123_456_789

    def begins(self) -> list[int]:
        if self.at is not None or not self.runs:
            return self.at or []
        return [sum(count for _, count in self.runs[:n]) for n in range(len(self.runs))]


Folders = dict[bytes, dict[bytes, Row]]


class Writer:
    def __init__(self, root: Path, seed: bytes, *, register: str = "5a" * 16, epoch: str = "0e" * 8) -> None:
        self.root, self.register, self.epoch, self.realm = root, register, epoch, "4d" * 32
        self.id_key = b"identity key of the test's epoch"
        self.list_key = blake3.blake3(self.id_key, derive_key_context="exclave/file-digest/v1").digest()
        expanded = hashlib.shake_256(seed).digest(96)
        kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = X25519PrivateKey.from_private_bytes(expanded[64:])
        public = kem.public_key(), curve.public_key()
        self.recipient = hashlib.sha256(public[0].public_bytes_raw() + public[1].public_bytes_raw()).digest()[
            :16
        ]
        self.public = hpke.MLKEM768X25519PublicKey(*public)
        self.sequence, self.term, self.previous = 1, 3, "0" * 64
        self.packs: list[tuple[int, str, int]] = []
        self.everything: Folders = {}
        self.spoil: Callable[[list[bytes]], list[bytes]] = list
        self.signers = (
            Ed25519PrivateKey.from_private_bytes(bytes(32)),
            MLDSA65PrivateKey.from_seed_bytes(bytes(32)),
        )

    # -- containers
    def container(self, kind: int, number: int, plain: bytes) -> bytes:
        size = 4096
        while size < len(plain):
            size += 1 << (size.bit_length() - 4)
        head = struct.pack(">8sBBBBI", b"exclave\x01", kind, 1, 2, 0, size)
        head += bytes.fromhex(self.realm + self.register + self.epoch) + struct.pack(">QQ", self.term, number)
        key = hashlib.sha256(head + plain).digest()
        suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
        capsule = suite.encrypt(key, self.public, info=lp(b"exclave/capsule/v1", head, self.recipient))
        sealer = Cobblestone256Encryptor(key, lp(b"exclave/body/v1", head))
        table_and_end = self.tail
        plain = plain[: len(plain) - len(table_and_end)] + bytes(size - len(plain)) + table_and_end
        other = b"another's" + bytes(7) + bytes(1168)
        return head + other + self.recipient + capsule + sealer.update(plain) + sealer.finalize()

    def plain(self, slots: list[bytes], a_frame: int = 3, /, **lies: int) -> bytes:
        frames, offsets, stored, raws, firsts = [], [], [], [], []
        for first in range(0, len(slots), a_frame):
            raw = b"".join(slots[first : first + a_frame])
            small = zstandard.ZstdCompressor(level=1).compress(raw)
            frame = small if len(small) < len(raw) else raw
            offsets.append(sum(map(len, frames)))
            stored.append(len(frame)), raws.append(lies.get("raw", len(raw))), firsts.append(first)
            frames.append(frame)
        lengths = [len(slot) for slot in slots]
        table = struct.pack("<II", lies.get("frames", len(frames)), lies.get("slots", len(slots)))
        table += b"".join(array("I", values).tobytes() for values in (offsets, stored, raws, firsts, lengths))
        small = zstandard.ZstdCompressor(level=1).compress(table)
        shown = small if len(small) < len(table) else table
        self.tail = shown + struct.pack(">II", lies.get("stored", len(shown)), lies.get("table", len(table)))
        return b"".join(frames) + self.tail

    def put(self, kind: str, raw: bytes) -> tuple[str, int]:
        name = hashlib.sha256(raw).hexdigest()
        path = (
            self.root
            / f"r/{self.register}/{self.epoch}/{kind}/{name[:2] + '/' if kind == 'pack' else ''}{name}"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        return name, len(raw)

    def pack(
        self, number: int, chunks: list[bytes], /, *, twist: Callable[[bytes], bytes] = bytes, **lies: int
    ) -> int:
        """Writes a pack, which `twist` may spoil before it is named; returns the reference of its first chunk."""
        plain = self.plain(chunks, **lies)
        self.packs.append((number, *self.put("pack", twist(self.container(1, number, plain)))))
        return number << 20

    # -- digests
    def digest(self, *extents: bytes) -> bytes:
        each = [blake3.blake3(extent, key=self.id_key).digest() for extent in extents]
        return each[0] if len(each) == 1 else blake3.blake3(b"".join(each), key=self.list_key).digest()

    def folder_digest(self, path: bytes) -> bytes:
        rows = sorted(self.everything[path].items())
        extras = {str(n): row.extra for n, (_, row) in enumerate(rows) if row.extra is not None}
        numbers = [
            column([getattr(row, name) for _, row in rows])
            for name in ("mode", "uid", "gid", "size", "mtime")
        ]
        names, digests = b"".join(name + b"\0" for name, _ in rows), b"".join(row.digest for _, row in rows)
        return blake3.blake3(
            lp(path, names, b"".join(numbers), digests, spell(extras)), key=self.list_key
        ).digest()

    # -- manifest and commit
    def folder(self, path: bytes, rows: dict[bytes, Row], removed: list[bytes]) -> bytes:
        names, ordered = (
            b"".join(name + b"\0" for name in sorted(rows)),
            [rows[name] for name in sorted(rows)],
        )
        runs = [run for row in ordered for run in row.runs]
        begins = [place for row in ordered for place in row.begins()]
        steps = [run[0] - before[0] for run, before in zip(runs, [(0, 0), *runs], strict=False)]
        document = {
            "record": "folder", "path": b64(path), "names": len(names), "rows": len(rows), "runs": len(runs),
            "removed": [b64(name) for name in removed],
            "extras": {str(n): row.extra for n, row in enumerate(ordered) if row.extra is not None},
            "digest": self.folder_digest(path).hex(),
        }  # fmt: skip
        numbers = [
            [getattr(row, name) for row in ordered]
            for name in ("mode", "uid", "gid", "size", "mtime", "page")
        ]
        return record(
            document, names, *map(column, numbers), bytes(row.patched for row in ordered),
            column([len(row.runs) for row in ordered]), column(steps), column([count for _, count in runs]),
            column(begins), b"".join(row.digest for row in ordered),
        )  # fmt: skip

    def folder_in_two(self, path: bytes, rows: dict[bytes, Row], removed: list[bytes]) -> list[bytes]:
        """The same folder in two records where it has enough rows."""
        names = sorted(rows)
        if len(names) < 2:
            return [self.folder(path, rows, removed)]
        low, high = names[: len(names) // 2], names[len(names) // 2 :]
        return [
            self.folder(path, {n: rows[n] for n in low}, removed),
            self.folder(path, {n: rows[n] for n in high}, []),
        ]

    def snapshot(
        self, changed: Folders, *, removed: dict[bytes, list[bytes]] | None = None, gone: tuple[bytes, ...] = (),
        parents: list[dict[str, Any]] | None = None, depth: int = 0, kind: str = "files", a_part: int = 2, **head: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Writes manifest and commit; returns the manifest's parts. `changed` stands on the snapshot before."""
        removed = removed or {}
        for path in gone:
            del self.everything[path]
        for path in changed.keys() | removed.keys():
            whole = self.everything.setdefault(path, {})
            for name in removed.get(path, []):
                del whole[name]
            whole.update(changed.get(path, {}))
        root = lp(*(piece for path in sorted(self.everything) for piece in (path, self.folder_digest(path))))
        packs = sorted(self.packs)
        records = [
            record({"record": "packs", "rows": len(packs)}, column([number for number, _, _ in packs]),
                   b"".join(bytes.fromhex(name) for _, name, _ in packs), column([size for _, _, size in packs])),
            *(one for path in sorted(changed.keys() | removed.keys())
              for one in self.folder_in_two(path, changed.get(path, {}), removed.get(path, []))),
            record({
                "record": "head", "version": 1, "register": "Land", "kind": kind, "term": self.term,
                "sequence": self.sequence, "consistent_at": AT, "position": "", "parents": parents or [],
                "depth": depth, "id_key": b64(self.id_key), "index_key": b64(bytes(32)), "environment": {},
                "owners": {"users": {}, "groups": {}}, "gaps": [], "gone": [b64(path) for path in gone],
                "totals": {"folders": 0, "files": 0, "bytes": 0},
                "root": blake3.blake3(root, key=self.list_key).hexdigest(), **head,
            }),
        ]  # fmt: skip
        records = self.spoil(records)
        groups = [records[at : at + a_part] for at in range(0, len(records), a_part)]
        parts = [
            self.put("manifest", self.container(2, self.sequence, self.plain(group))) for group in groups
        ]
        manifest = [{"id": name, "size": size} for name, size in parts]
        self.commit(manifest, full=not parents)
        return manifest

    def commit(self, manifest: list[dict[str, Any]], *, full: bool) -> None:
        document = {
            "realm": self.realm, "register": self.register, "epoch": self.epoch, "term": self.term,
            "sequence": self.sequence, "previous": self.previous, "at": AT, "manifest": manifest, "index": [],
            "packs": [{"id": name, "number": number, "size": size} for number, name, size in self.packs],
            "full": full, "lease": "standard", "gaps": 0, "charter": "00" * 32,
        }  # fmt: skip
        body = b"exclave/commit/v1\n" + spell(document) + b"\n"
        raw = body + b"\n" + "".join(f"\u2014 home {b64(made)}\n" for made in self.signatures(body)).encode()
        path = self.root / f"r/{self.register}/commit/{self.term:08x}/{self.sequence:016x}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        self.previous, self.sequence, self.packs = hashlib.sha256(raw).hexdigest(), self.sequence + 1, []

    def keys(self) -> list[bytes]:
        return [kind + key.public_key().public_bytes_raw()
                for kind, key in zip((b"\x01", MLDSA), self.signers, strict=True)]  # fmt: skip

    def signatures(self, body: bytes) -> list[bytes]:
        made = self.signers[0].sign(body), self.signers[1].sign(body, context=b"exclave/note/v1")
        return [self.key_id(key) + one for key, one in zip(self.keys(), made, strict=True)]

    @staticmethod
    def key_id(key: bytes) -> bytes:
        return hashlib.sha256(b"home\n" + key).digest()[:4]

    def charter(self) -> bytes:
        """Only as much of one as says who writes; its own signatures are another specification's."""
        keys = b"".join(key.public_key().public_bytes_raw() for key in self.signers)
        register = {"id": self.register, "epoch": self.epoch, "writer": {"name": "home", "key": b64(keys)}}
        body = b"exclave/charter/v1\n" + spell({"realm": self.realm, "registers": [register]}) + b"\n"
        return body + "\n\u2014 somebody AAAA\n".encode()


FOLDER, FILE, LINK, FIFO = (
    stat.S_IFDIR | 0o750,
    stat.S_IFREG | 0o640,
    stat.S_IFLNK | 0o777,
    stat.S_IFIFO | 0o600,
)
