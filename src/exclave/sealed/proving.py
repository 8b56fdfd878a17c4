"""Proving that restored content is what was sealed: file digests, computed while it is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from exclave.crypto import hashing
from exclave.crypto.hashing import blake3
from exclave.sealed.intake import LIST_KEY_PURPOSE


@dataclass(slots=True)
class Prover:
    """Compares what was written with the digests in the manifest.

    Files of one chunk are decided at once, those cut by content when all is written, and those cut by page by
    reading them back (`extents_digest`), because their extents gather from many packs.
    """

    id_key: bytes = field(repr=False)
    wanted: dict[int, bytes] = field(
        default_factory=dict[int, bytes]
    )  # file number -> digest in the manifest
    paged: set[int] = field(default_factory=set[int])
    wrong: set[int] = field(default_factory=set[int])
    _chunks: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict[int, list[tuple[int, bytes]]])

    def wrote(self, file: int, offset: int, data: memoryview, cuts: list[int]) -> None:
        """These bytes, which are whole chunks with the given ends, were written to a file not cut by page."""
        key = self.id_key
        if len(cuts) == 2 and not offset and blake3(data, key=key).digest() == self.wanted[file]:
            del self.wanted[file]
            return
        chunks = self._chunks.setdefault(file, [])
        for start, end in pairwise(cuts):
            chunks.append((offset + start, blake3(data[start:end], key=key).digest()))

    def finish(self) -> None:
        """Everything was written: decide the files cut by content. `wrong` then has those that differ."""
        for file in [file for file in self.wanted if file not in self.paged]:
            digests = [digest for _, digest in sorted(self._chunks.pop(file, []))]
            if self.combined(digests) != self.wanted.pop(file):
                self.wrong.add(file)

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
