"""Proving that restored content is what was sealed: file digests, computed while it is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from exclave.crypto import hashing
from exclave.crypto.hashing import blake3
from exclave.sealed.chunking import EXTENT_BYTES
from exclave.sealed.intake import LIST_KEY_PURPOSE


@dataclass(slots=True)
class Prover:
    """Compares what was written with the digests in the manifest.

    Files of one chunk are decided at once, those cut by content when all is written. Files cut by page are followed
    while their pages come in order; those whose pages come from many packs out of order must be read back.
    """

    id_key: bytes = field(repr=False)
    wanted: dict[int, bytes] = field(
        default_factory=dict[int, bytes]
    )  # file number -> digest in the manifest
    wrong: set[int] = field(default_factory=set[int])
    _chunks: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict[int, list[tuple[int, bytes]]])
    _followers: dict[int, _Follower] = field(default_factory=dict[int, "_Follower"])

    def wrote(self, file: int, offset: int, data: memoryview, cuts: list[int]) -> None:
        """These bytes, which are whole chunks with the given ends, were written to a file not cut by page."""
        key = self.id_key
        if len(cuts) == 2 and not offset and blake3(data, key=key).digest() == self.wanted[file]:
            del self.wanted[file]
            return
        chunks = self._chunks.setdefault(file, [])
        for start, end in pairwise(cuts):
            chunks.append((offset + start, blake3(data[start:end], key=key).digest()))

    def wrote_pages(self, file: int, offset: int, data: memoryview) -> None:
        """These bytes were written to a file cut by page."""
        follower = self._followers.get(file)
        if follower is None:
            follower = self._followers[file] = _Follower(self.id_key)
        follower.wrote(offset, data)

    def finish(self, sizes: dict[int, int]) -> list[int]:
        """Everything was written: decide what can be. `wrong` then has the files that differ.

        `sizes` are those of the files cut by page. Gives the files that must be read back.
        """
        for file, follower in self._followers.items():
            extents = follower.extents(sizes[file])
            if extents is not None:
                self.read_back(file, extents)
        for file in [file for file in self.wanted if file not in sizes]:
            digests = [digest for _, digest in sorted(self._chunks.pop(file, []))]
            if self.combined(digests) != self.wanted.pop(file):
                self.wrong.add(file)
        return sorted(file for file in self.wanted if file in sizes)

    def read_back(self, file: int, extents: list[bytes]) -> None:
        """The digests of a paged file's extents, read back from where it was written."""
        if self.combined(extents) != self.wanted.pop(file):
            self.wrong.add(file)

    def combined(self, digests: list[bytes]) -> bytes:
        """Digest of a file from those of its extents (spec, section 4)."""
        if len(digests) == 1:
            return digests[0]
        list_key = hashing.derive(self.id_key, LIST_KEY_PURPOSE)
        return hashing.digest(b"".join(digests), list_key) if digests else bytes(hashing.DIGEST_BYTES)


class _Follower:
    """Digests of a file's extents, as long as its bytes come in order."""

    __slots__ = ("_broken", "_digests", "_hasher", "_key", "_next")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._next = 0
        self._broken = False
        self._hasher = blake3(key=key)
        self._digests: list[bytes] = []

    def wrote(self, offset: int, data: memoryview) -> None:
        """The next bytes, or any others: then the file is given up."""
        if offset != self._next or self._broken:
            self._broken = True
            self._digests.clear()
            return
        at = 0
        while at < len(data):
            size = min(len(data) - at, EXTENT_BYTES - self._next % EXTENT_BYTES)
            self._hasher.update(data[at : at + size])
            at += size
            self._next += size
            if self._next % EXTENT_BYTES == 0:
                self._digests.append(self._hasher.digest())
                self._hasher = blake3(key=self._key)

    def extents(self, size: int) -> list[bytes] | None:
        """The digests of all extents, or None when bytes came out of order or not all."""
        if self._broken or self._next != size:
            return None
        return [*self._digests, self._hasher.digest()] if size % EXTENT_BYTES else self._digests
