"""Home's memory of one register's last snapshot: a cache that makes the next one cheap, safe to lose.

A folder on disk: `head.json` names the current generation (fsynced, replaced atomically); `tree-N` has every
folder's columns; `pages-N-K` are page maps of long paged files. It carries its own checksum and those of what
it names; anything damaged counts as forgotten, never as true.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exclave import codec, homedisk, positions
from exclave.codec import b64, unb64
from exclave.crypto import hashing
from exclave.crypto.hashing import CHUNK_ID_BYTES, DIGEST_BYTES
from exclave.errors import ExclaveError
from exclave.listing import STATS, Listing
from exclave.positions import HEAD_FILE, Position
from exclave.sealed.assembly import Summary
from exclave.sealed.folders import Folder, extras_document, extras_from, names_column
from exclave.sealed.intake import PageMap

_ENTRY = struct.Struct("<QQQQ32sI")  # offset, length, files, bytes, digest, length of path
_FOLDER = struct.Struct("<IIII")  # rows, runs, bytes of names, bytes of extras


@dataclass(slots=True)
class _Entry:
    offset: int
    length: int
    summary: Summary


@dataclass(slots=True)
class Catalog:
    """The last snapshot as remembered. Reading only; `NextCatalog` writes the following one."""

    folder: Path
    position: Position | None = None
    pages: dict[bytes, tuple[str, str]] = field(
        default_factory=dict[bytes, tuple[str, str]]
    )  # path -> file, digest
    _entries: dict[bytes, _Entry] = field(default_factory=dict[bytes, _Entry])
    _tree: bytes = b""

    @classmethod
    def load(cls, folder: Path) -> Catalog:
        """What is remembered in `folder`; nothing, when there is nothing or it is damaged."""
        try:
            head = positions.decode_head((folder / HEAD_FILE).read_bytes())
            tree = (folder / head["tree"][0]).read_bytes()
            if _checksum(tree) != head["tree"][1]:
                return cls(folder)
            position = positions.from_document(head["position"])
            pages = {unb64(path): (str(name), str(digest)) for path, (name, digest) in head["pages"].items()}
            return cls(folder, position, pages, _read_entries(tree), tree)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
            return cls(folder)
        except (struct.error, ExclaveError):
            return cls(folder)

    def paths(self) -> Iterable[bytes]:
        """Every folder of the register."""
        return self._entries.keys()

    def load_folder(self, path: bytes) -> Folder | None:
        """One folder, or None."""
        entry = self._entries.get(path)
        return None if entry is None else decode_folder(path, self.raw(path))

    def summary(self, path: bytes) -> Summary | None:
        """Digest and totals of a folder, or None."""
        entry = self._entries.get(path)
        return None if entry is None else entry.summary

    def raw(self, path: bytes) -> memoryview:
        """A folder as it is written in the tree file."""
        entry = self._entries[path]
        return memoryview(self._tree)[entry.offset : entry.offset + entry.length]

    def folder_listing(self, path: bytes) -> Listing | None:
        """For the register's own comparison."""
        folder = self.load_folder(path)
        return None if folder is None else folder.listing()

    def page_map(self, path: bytes) -> PageMap | None:
        """The page map of a long paged file, or None when there is none or it is damaged."""
        name, digest = self.pages.get(path, ("", ""))
        try:
            data = (self.folder / name).read_bytes() if name else b""
        except OSError:
            return None
        return _decode_pages(data) if data and _checksum(data) == digest else None


class RememberedListings:
    """A catalogue as the registers' port `Prior`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def folder(self, path: bytes) -> Listing | None:
        """The complete listing of a folder in the previous snapshot, or None."""
        return self._catalog.folder_listing(path)


def encode_folder(folder: Folder) -> bytes:
    """A folder's columns as bytes."""
    names = names_column(folder.names)
    extras = codec.encode(extras_document(folder.extras)) if folder.extras else b""
    return b"".join(
        [
            _FOLDER.pack(len(folder.names), len(folder.run_refs), len(names), len(extras)),
            np.ascontiguousarray(folder.stats).tobytes(),
            np.ascontiguousarray(folder.page_bytes).tobytes(),
            np.ascontiguousarray(folder.run_counts).tobytes(),
            np.ascontiguousarray(folder.run_refs).tobytes(),
            np.ascontiguousarray(folder.run_lens).tobytes(),
            np.ascontiguousarray(folder.run_ats).tobytes(),
            np.ascontiguousarray(folder.digests).tobytes(),
            names,
            extras,
        ]
    )


def decode_folder(path: bytes, data: memoryview) -> Folder:
    """The inverse of `encode_folder`, over `data` without copying the columns."""
    rows, runs, names_bytes, extras_bytes = _FOLDER.unpack_from(data)
    at = _FOLDER.size

    def column(count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        nonlocal at
        values = np.frombuffer(data, np.int64, count, at)
        at += 8 * count
        return values

    stats = column(rows * STATS).reshape(rows, STATS)
    page_bytes, run_counts = column(rows), column(rows)
    run_refs, run_lens, run_ats = column(runs), column(runs), column(runs)
    digests = np.frombuffer(data, np.uint8, rows * DIGEST_BYTES, at).reshape(rows, DIGEST_BYTES)
    at += rows * DIGEST_BYTES
    names = bytes(data[at : at + names_bytes]).split(b"\0")[:-1]
    extras = bytes(data[at + names_bytes : at + names_bytes + extras_bytes])
    return Folder(
        path, names, stats, page_bytes, run_counts, run_refs, run_lens, run_ats, digests,
        extras_from(codec.decode(extras), rows) if extras else {},
    )  # fmt: skip


class NextCatalog:
    """The catalogue of the snapshot that is being made. Nothing counts until `publish`."""

    def __init__(self, prior: Catalog) -> None:
        self._prior = prior
        self._folder = prior.folder
        with homedisk.usable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            # What cannot be kept at the end should be said at the beginning, before hours of reading and sending.
            (self._folder / f"{HEAD_FILE}.new").touch()
        current = prior.position.sequence if prior.position else 0
        self._generation = f"{current + 1}-{os.getpid()}"
        self._blobs: dict[bytes, bytes | memoryview] = {}
        self._summaries: dict[bytes, Summary] = {}
        self._pages: dict[bytes, tuple[str, str]] = {}

    def keep(self, path: bytes) -> None:
        """The folder is as it was."""
        summary = self._prior.summary(path)
        if summary is None:
            raise ValueError("a folder that is not remembered cannot be kept")
        self._blobs[path], self._summaries[path] = self._prior.raw(path), summary

    def put(self, folder: Folder, summary: Summary) -> None:
        """The folder is now so."""
        self._blobs[folder.path], self._summaries[folder.path] = encode_folder(folder), summary

    def load(self, path: bytes) -> Folder:
        """A folder of the new snapshot."""
        return decode_folder(path, memoryview(self._blobs[path]))

    def put_pages(self, path: bytes, pages: PageMap) -> None:
        """Write a page map; not fsynced, because its digest tells whether it survived."""
        data = _encode_pages(pages)
        name = f"pages-{self._generation}-{len(self._pages)}"
        with homedisk.usable(self._folder):
            (self._folder / name).write_bytes(data)
        self._pages[path] = (name, _checksum(data))

    def keep_pages(self, path: bytes) -> None:
        """The page map, if there was one, is as it was."""
        if path in self._prior.pages:
            self._pages[path] = self._prior.pages[path]

    def publish(self, position: Position) -> None:
        """Make it the current one: durable on return. Files of older generations go."""
        with homedisk.usable(self._folder):
            self._publish(position)

    def _publish(self, position: Position) -> None:
        tree = self._prior_tree_if_same() or self._write_tree()
        head = {
            "position": positions.document(position),
            "tree": tree,
            "pages": {b64(path): list(pages) for path, pages in self._pages.items()},
        }
        staged = self._folder / f"{HEAD_FILE}.new"
        with staged.open("wb") as file:
            file.write(positions.encode_head(head))
            file.flush()
            os.fsync(file.fileno())
        staged.rename(self._folder / HEAD_FILE)
        _fsync_folder(self._folder)
        wanted = {HEAD_FILE, tree[0], *(name for name, _ in self._pages.values())}
        for entry in self._folder.iterdir():
            if entry.name not in wanted and entry.name.startswith(("tree-", "pages-", f"{HEAD_FILE}.")):
                entry.unlink(missing_ok=True)

    def _prior_tree_if_same(self) -> list[str] | None:
        if self._blobs.keys() != set(self._prior.paths()):
            return None
        if any(not isinstance(blob, memoryview) for blob in self._blobs.values()):
            return None
        return positions.decode_head((self._folder / HEAD_FILE).read_bytes())["tree"] if self._blobs else None

    def _write_tree(self) -> list[str]:
        name = f"tree-{self._generation}"
        offset, index = 0, bytearray()
        hasher = hashing.blake3()
        with (self._folder / name).open("wb") as file:

            def write(data: bytes | bytearray | memoryview) -> None:
                hasher.update(data)
                file.write(data)

            for path, blob in self._blobs.items():
                padding = -len(blob) % 8
                write(blob)
                write(bytes(padding))
                summary = self._summaries[path]
                index += (
                    _ENTRY.pack(offset, len(blob), summary.files, summary.bytes, summary.digest, len(path))
                    + path
                )
                offset += len(blob) + padding
            write(index)
            write(struct.pack("<QQ", offset, len(self._blobs)))
        return [name, hasher.hexdigest()]


def _read_entries(tree: bytes) -> dict[bytes, _Entry]:
    at, count = struct.unpack_from("<QQ", tree, len(tree) - 16)
    entries: dict[bytes, _Entry] = {}
    for _ in range(count):
        offset, length, files, size, digest, path_length = _ENTRY.unpack_from(tree, at)
        at += _ENTRY.size
        entries[tree[at : at + path_length]] = _Entry(offset, length, Summary(digest, files, size))
        at += path_length
    return entries


def _encode_pages(pages: PageMap) -> bytes:
    head = struct.pack("<QQQ", pages.page_bytes, len(pages.extents), len(pages.ids))
    columns = (pages.refs, pages.extents, pages.ids)
    return b"".join([head, *(np.ascontiguousarray(column).tobytes() for column in columns)])


def _decode_pages(data: bytes) -> PageMap:
    page_bytes, extents, pages = struct.unpack_from("<QQQ", data)
    refs = np.frombuffer(data, np.int64, pages, 24)
    at = 24 + 8 * pages
    digests = np.frombuffer(data, np.uint8, extents * DIGEST_BYTES, at).reshape(-1, DIGEST_BYTES)
    ids = np.frombuffer(data, np.uint8, pages * CHUNK_ID_BYTES, at + extents * DIGEST_BYTES)
    return PageMap(page_bytes, digests, ids.reshape(-1, CHUNK_ID_BYTES), refs)


def _checksum(data: bytes) -> str:
    return hashing.blake3(data).hexdigest()


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
