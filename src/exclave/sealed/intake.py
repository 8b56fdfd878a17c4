"""Taking in captured content: cut, name, look up, and place what is new. Pure; the hot path of `protect`.

Content arrives in slabs; what it became (references and a digest) is asked for by ordinal when the folder is told.
Work is per slab and per file; per page only where a page may have changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exclave.crypto import hashing
from exclave.crypto.hashing import CHUNK_ID_BYTES, DIGEST_BYTES, blake3
from exclave.errors import Tampered
from exclave.sealed.chunking import EXTENT_BYTES, WHOLE_BYTES, ContentCutter
from exclave.sealed.folders import Ints
from exclave.sealed.manifest import Patch
from exclave.sealed.packstream import PackStream

LIST_KEY_PURPOSE = "exclave/file-digest/v1"


@dataclass(frozen=True, slots=True)
class PageMap:
    """Where every page of a long paged file is: kept at home, to look first at the same place next time."""

    page_bytes: int
    extents: NDArray[np.uint8]  # (extents of 1 MiB, 32): their digests
    ids: NDArray[np.uint8]  # (pages, 16)
    refs: Ints  # (pages,)


@dataclass(frozen=True, slots=True)
class Content:
    """What a file's bytes became. `patch` is relative to the page map of the previous snapshot."""

    refs: Ints
    places: Ints  # where each chunk begins: page number if cut by page, else byte offset
    digest: bytes
    pages: PageMap | None = None
    patch: Patch | None = None


class SlabLike(Protocol):
    """The part of a slab that is needed here (registers.slabs)."""

    memory: memoryview
    spans: list[tuple[int, int, int]]
    position: int
    more: bool
    page_bytes: int
    path: bytes


class ChunkFinder(Protocol):
    """Home's index."""

    def find(self, ids: bytes) -> Ints:
        """References of concatenated ids; -1 where unknown."""
        ...

    def add(self, ids: bytes, references: Ints) -> None:
        """Remember new chunks."""
        ...


class Intake:
    """One capture's content, in the order in which it comes. Not for several threads."""

    def __init__(
        self,
        id_key: bytes,
        finder: ChunkFinder,
        stream: PackStream,
        page_map: Callable[[bytes], PageMap | None],
    ) -> None:
        self._id_key = id_key
        self._list_key = hashing.derive(id_key, LIST_KEY_PURPOSE)
        self._finder = finder
        self._stream = stream
        self._page_map = page_map
        self._cutter = ContentCutter(id_key)
        self._open: _LongFile | _PagedFile | None = None
        self.small: dict[int, tuple[int, bytes]] = {}  # ordinal -> reference, digest: files of one chunk
        self.large: dict[int, Content] = {}
        self.new_chunks = 0
        self.new_bytes = 0

    def take(self, slab: SlabLike) -> None:
        """Take in one slab. Afterwards its memory may be reused."""
        if slab.page_bytes:
            self._take_pages(slab)
        elif slab.more or slab.position:
            self._take_part(slab)
        else:
            whole = [span for span in slab.spans if span[2] - span[1] <= WHOLE_BYTES]
            self._take_whole(slab.memory, whole)
            if len(whole) < len(slab.spans):
                for ordinal, start, end in slab.spans:
                    if end - start > WHOLE_BYTES:
                        file = _LongFile(ordinal)
                        self._take_cut(file, slab.memory, start, end, last=True)
        self._stream.settle()

    def _take_whole(self, memory: memoryview, spans: list[tuple[int, int, int]]) -> None:
        key = self._id_key
        digests = [blake3(memory[start:end], key=key).digest() for _, start, end in spans]
        refs = self._place(memory, [(start, end) for _, start, end in spans], digests).tolist()
        self.small.update(
            (span[0], (ref, digest)) for span, ref, digest in zip(spans, refs, digests, strict=True)
        )

    def _place(self, memory: memoryview, cuts: list[tuple[int, int]], digests: list[bytes]) -> Ints:
        """References of the chunks at `cuts`; those that home has not sealed before go into the stream."""
        ids = [digest[:CHUNK_ID_BYTES] for digest in digests]
        refs = self._finder.find(b"".join(ids))
        unknown = np.flatnonzero(refs < 0).tolist()
        if unknown:
            fresh: dict[bytes, int] = {}
            for at in unknown:
                chunk_id = ids[at]
                ref = fresh.get(chunk_id)
                if ref is None:
                    start, end = cuts[at]
                    ref = fresh[chunk_id] = self._stream.place(memory[start:end], chunk_id)
                    self.new_bytes += end - start
                refs[at] = ref
            self.new_chunks += len(fresh)
            self._finder.add(b"".join(fresh), np.fromiter(fresh.values(), np.int64, len(fresh)))
        return refs

    def _take_part(self, slab: SlabLike) -> None:
        ((ordinal, start, end),) = slab.spans
        file = self._open if slab.position else _LongFile(ordinal)
        if not isinstance(file, _LongFile) or file.ordinal != ordinal:
            raise ValueError("a slab continues a file that was not begun")
        carried = len(file.carry)
        slab.memory[start - carried : start] = file.carry
        self._take_cut(file, slab.memory, start - carried, end, last=not slab.more)
        self._open = file if slab.more else None

    def _take_cut(self, file: _LongFile, memory: memoryview, start: int, end: int, *, last: bool) -> None:
        ends = self._cutter.cut(memory[start:end], last=last)
        cuts: list[tuple[int, int]] = []
        at = start
        for cut in ends:
            cuts.append((at, start + cut))
            at = start + cut
        digests = [blake3(memory[a:b], key=self._id_key).digest() for a, b in cuts]
        if cuts:
            file.refs.append(self._place(memory, cuts, digests))
            file.digests.extend(digests)
            file.places.extend(file.done + first - start for first, _ in cuts)
            file.done += at - start
        file.carry = bytes(memory[at:end])
        if last:
            refs = np.concatenate(file.refs) if file.refs else np.zeros(0, np.int64)
            self.large[file.ordinal] = Content(
                refs, np.array(file.places, np.int64), self.file_digest(file.digests)
            )

    def _take_pages(self, slab: SlabLike) -> None:
        ((ordinal, start, end),) = slab.spans
        file = self._open
        if not slab.position:
            file = _PagedFile(ordinal, slab.page_bytes, self._page_map(slab.path))
        if not isinstance(file, _PagedFile) or file.ordinal != ordinal:
            raise ValueError("a slab continues a file that was not begun")
        for at in range(start, end, EXTENT_BYTES):
            self._take_extent(file, slab.memory, at, min(at + EXTENT_BYTES, end))
        self._open = file if slab.more else None
        if not slab.more:
            self.large[ordinal] = file.content(self.file_digest(file.digests))

    def _take_extent(self, file: _PagedFile, memory: memoryview, start: int, end: int) -> None:
        number = len(file.digests)
        digest = hashing.digest(memory[start:end], self._id_key)
        file.digests.append(digest)
        prior_ids, prior_refs = file.prior_extent(number, digest, -(-(end - start) // file.page_bytes))
        if prior_ids is not None and prior_refs is not None:
            file.ids.append(prior_ids)
            file.refs.append(prior_refs)
            return
        page = file.page_bytes
        cuts = [(at, min(at + page, end)) for at in range(start, end, page)]
        digests = [blake3(memory[a:b], key=self._id_key).digest() for a, b in cuts]
        ids = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)[:, :CHUNK_ID_BYTES]
        same_refs = file.prior_pages(number, ids)
        unsure = np.flatnonzero(same_refs < 0)
        if len(unsure):
            wanted = unsure.tolist()
            same_refs[unsure] = self._place(memory, [cuts[i] for i in wanted], [digests[i] for i in wanted])
        file.ids.append(ids)
        file.refs.append(same_refs)

    def file_digest(self, digests: list[bytes]) -> bytes:
        """Digest of a file from those of its extents (spec, section 4)."""
        if not digests:
            return bytes(DIGEST_BYTES)
        return digests[0] if len(digests) == 1 else hashing.digest(b"".join(digests), self._list_key)

    def finish(self) -> None:
        """All slabs have come. Raises Tampered when a file was left unfinished by the source."""
        if self._open is not None:
            raise Tampered(
                "source-damaged", "A file ended in the middle of its capture", hint="exclave protect"
            )


class _LongFile:
    """A file cut by content, so far."""

    __slots__ = ("carry", "digests", "done", "ordinal", "places", "refs")

    def __init__(self, ordinal: int) -> None:
        self.ordinal = ordinal
        self.carry = b""
        self.done = 0  # bytes cut into chunks
        self.places: list[int] = []
        self.digests: list[bytes] = []
        self.refs: list[Ints] = []


class _PagedFile:
    """A file cut by page, so far, beside what it was in the previous snapshot."""

    __slots__ = ("_prior", "digests", "ids", "ordinal", "page_bytes", "refs")

    def __init__(self, ordinal: int, page_bytes: int, prior: PageMap | None) -> None:
        self.ordinal = ordinal
        self.page_bytes = page_bytes
        self._prior = prior if prior is not None and prior.page_bytes == page_bytes else None
        self.digests: list[bytes] = []
        self.ids: list[NDArray[np.uint8]] = []
        self.refs: list[Ints] = []

    def prior_extent(
        self, number: int, digest: bytes, pages: int
    ) -> tuple[NDArray[np.uint8] | None, Ints | None]:
        """Ids and references of a whole extent that has not changed, or nothing."""
        prior = self._prior
        if prior is None or number >= len(prior.extents) or prior.extents[number].tobytes() != digest:
            return None, None
        first = number * (EXTENT_BYTES // self.page_bytes)
        return prior.ids[first : first + pages], prior.refs[first : first + pages]

    def prior_pages(self, number: int, ids: NDArray[np.uint8]) -> Ints:
        """References of the pages that are as they were at the same place; -1 for the others."""
        refs = np.full(len(ids), -1, np.int64)
        if self._prior is not None:
            first = number * (EXTENT_BYTES // self.page_bytes)
            old = self._prior.ids[first : first + len(ids)]
            same = np.flatnonzero((old == ids[: len(old)]).all(axis=1))
            refs[same] = self._prior.refs[first + same]
        return refs

    def content(self, digest: bytes) -> Content:
        """The finished file."""
        refs = np.concatenate(self.refs) if self.refs else np.zeros(0, np.int64)
        pages = patch = None
        if len(self.digests) > 1:
            extents = np.frombuffer(b"".join(self.digests), np.uint8).reshape(-1, DIGEST_BYTES)
            pages = PageMap(self.page_bytes, extents, np.concatenate(self.ids), refs)
        if self._prior is not None:
            old = np.full(len(refs), -1, np.int64)
            shared = min(len(refs), len(self._prior.refs))
            old[:shared] = self._prior.refs[:shared]
            at = np.flatnonzero(old != refs)
            patch = Patch(at, refs[at])
        return Content(refs, np.arange(len(refs), dtype=np.int64), digest, pages, patch)
