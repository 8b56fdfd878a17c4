"""Assembling a snapshot: folders as told, with their content's whereabouts, become manifest records. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from exclave.crypto.hashing import DIGEST_BYTES
from exclave.listing import AS_BEFORE, MODE, NO_CONTENT, SIZE, Listing
from exclave.sealed import folders, manifest
from exclave.sealed.folders import Folder, Ints
from exclave.sealed.intake import Content, Intake, PageMap
from exclave.sealed.manifest import Patch


@dataclass(frozen=True, slots=True)
class Summary:
    """What the catalogue keeps of a folder beside its columns."""

    digest: bytes
    files: int
    bytes: int


class PriorTree(Protocol):
    """The folders of the previous snapshot (catalog.py)."""

    def paths(self) -> Iterable[bytes]:
        """Every folder."""
        ...

    def load_folder(self, path: bytes) -> Folder | None:
        """One folder, or None."""
        ...

    def summary(self, path: bytes) -> Summary | None:
        """Its summary, or None."""
        ...


class NextTree(Protocol):
    """Where the folders of this snapshot are kept for the next one (catalog.py)."""

    def keep(self, path: bytes) -> None:
        """The folder is as it was."""
        ...

    def put(self, folder: Folder, summary: Summary) -> None:
        """The folder is now so."""
        ...

    def put_pages(self, path: bytes, pages: PageMap) -> None:
        """The page map of a long paged file is now so."""
        ...

    def keep_pages(self, path: bytes) -> None:
        """It is as it was (or there is none)."""
        ...


class Assembly:
    """Gathers one snapshot. `emit` takes manifest records; in a full one, `tell_all` sends every folder."""

    def __init__(
        self, *, intake: Intake, prior: PriorTree, next_tree: NextTree, emit: Callable[[bytes], object],
        full: bool, list_key: bytes,
    ) -> None:  # fmt: skip
        self._intake = intake
        self._prior = prior
        self._next = next_tree
        self._emit = emit
        self._full = full
        self._list_key = list_key
        self._summaries: dict[bytes, Summary] = {}

    def same(self, path: bytes) -> None:
        """A folder is exactly as in the previous snapshot."""
        summary = self._prior.summary(path)
        if summary is None:
            raise ValueError("a folder that was not there before cannot be the same")
        self._summaries[path] = summary
        self._next.keep(path)
        folder_pages = self._prior.load_folder(path)
        if folder_pages is not None and folder_pages.page_bytes.any():
            for name in folder_pages.names:
                self._next.keep_pages(_join(path, name))

    def told(self, listing: Listing) -> None:
        """A folder with all its entries; the slabs with their content have been taken in."""
        prior = self._prior.load_folder(listing.path)
        folder, patches = self._folder(listing, prior)
        digest = folders.folder_digest(folder, self._list_key)
        regular = (folder.stats[:, MODE] & 0o170000) == stat.S_IFREG
        # Only regular files have a size.
        summary = Summary(digest, int(np.count_nonzero(regular)), int(folder.stats[:, SIZE].sum()))
        self._summaries[listing.path] = summary
        self._next.put(folder, summary)
        if self._full:
            return
        if prior is None:
            for record in manifest.folder_records(folder, digest, [], {}):
                self._emit(record)
            return
        rows, _, removed = folders.changed_rows(prior, folder)
        if len(rows) or removed:
            place = {int(row): at for at, row in enumerate(rows)}
            moved = {place[row]: patch for row, patch in patches.items() if row in place}
            for record in manifest.folder_records(folder.rows(rows), digest, removed, moved):
                self._emit(record)

    def tell_all(self, load: Callable[[bytes], Folder]) -> None:
        """Emit every folder completely (for a full manifest); `load` reads it back."""
        for path in sorted(self._summaries):
            for record in manifest.folder_records(load(path), self._summaries[path].digest, [], {}):
                self._emit(record)

    def gone(self) -> tuple[bytes, ...]:
        """Folders of the previous snapshot that were not told."""
        if self._full:
            return ()
        return tuple(sorted(path for path in self._prior.paths() if path not in self._summaries))

    def root(self) -> bytes:
        """Integrity root over everything."""
        return folders.root_digest([(path, s.digest) for path, s in self._summaries.items()], self._list_key)

    def totals(self) -> dict[str, int]:
        """How much the snapshot holds."""
        return {
            "folders": len(self._summaries),
            "files": sum(summary.files for summary in self._summaries.values()),
            "bytes": sum(summary.bytes for summary in self._summaries.values()),
        }

    def _folder(self, listing: Listing, prior: Folder | None) -> tuple[Folder, dict[int, Patch]]:
        rows = _Rows(prior)
        patches: dict[int, Patch] = {}
        small = self._intake.small
        for row, ordinal in enumerate(listing.content.tolist()):
            if ordinal >= 0:
                one = small.pop(ordinal, None)
                name, page_bytes = listing.names[row], int(listing.page_bytes[row])
                if one is not None:
                    rows.one_chunk(name, page_bytes, *one)
                    continue
                content = self._intake.large.pop(ordinal)
                unchanged = rows.content(name, page_bytes, content)
                self._keep_pages(_join(listing.path, name), content, unchanged)
                if content.patch is not None and len(content.patch.at) * 2 < len(content.refs):
                    patches[row] = content.patch
            elif ordinal == AS_BEFORE:
                rows.as_before(listing.names[row])
                if listing.page_bytes[row]:
                    self._next.keep_pages(_join(listing.path, listing.names[row]))
            elif ordinal == NO_CONTENT:
                rows.nothing()
            else:
                raise ValueError("an unknown kind of content")
        return rows.folder(listing), patches

    def _keep_pages(self, path: bytes, content: Content, unchanged: Ints | None) -> None:
        if unchanged is not None and content.patch is not None:
            self._next.keep_pages(path)
        elif content.pages is not None:
            refs = content.refs if unchanged is None else unchanged
            self._next.put_pages(path, replace(content.pages, refs=refs))


class _Rows:
    """Run and digest columns of a folder while they grow, beside the same folder as it was."""

    def __init__(self, prior: Folder | None) -> None:
        self._prior = prior
        self._starts: list[int] = prior.run_starts().tolist() if prior is not None else []
        self._at = {name: row for row, name in enumerate(prior.names)} if prior is not None else {}
        self._counts: list[int] = []
        self._refs: list[int] = []
        self._lens: list[int] = []
        self._ats: list[int] = []
        self._digests: list[bytes] = []

    def one_chunk(self, name: bytes, page_bytes: int, reference: int, digest: bytes) -> None:
        """A file of one chunk."""
        row = self._row_as_before(name, page_bytes, digest)
        if row < 0:
            self._add([reference], [1], [0], digest)
        else:
            self._copy(row)

    def content(self, name: bytes, page_bytes: int, content: Content) -> Ints | None:
        """A longer file. If its content is what it was, it stays where it was: the references of that."""
        row = self._row_as_before(name, page_bytes, content.digest)
        if row < 0 or self._prior is None:
            refs, lens, ats = folders.runs_of(content.refs, content.places)
            self._add(refs.tolist(), lens.tolist(), ats.tolist(), content.digest)
            return None
        self._copy(row)
        runs = slice(self._starts[row], self._starts[row + 1])
        return folders.references_of(self._prior.run_refs[runs], self._prior.run_lens[runs])

    def as_before(self, name: bytes) -> None:
        """A file that was not read, because it cannot have changed."""
        if self._prior is None or name not in self._at:
            raise ValueError("a file that was not there before cannot be as before")
        self._copy(self._at[name])

    def nothing(self) -> None:
        """An entry without content."""
        self._add([], [], [], bytes(DIGEST_BYTES))

    def folder(self, listing: Listing) -> Folder:
        """The finished folder."""
        return Folder(
            listing.path,
            listing.names,
            listing.stats,
            listing.page_bytes.astype(np.int64),
            _ints(self._counts),
            _ints(self._refs),
            _ints(self._lens),
            _ints(self._ats),
            np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, DIGEST_BYTES),
            listing.extras,
        )

    def _row_as_before(self, name: bytes, page_bytes: int, digest: bytes) -> int:
        """The row of the previous snapshot with this name, cut in this way, and this content; or -1."""
        row = self._at.get(name, -1)
        if self._prior is None or row < 0 or self._prior.page_bytes[row] != page_bytes:
            return -1
        return row if self._prior.digests[row].tobytes() == digest else -1

    def _copy(self, row: int) -> None:
        prior = self._prior
        if prior is None:
            raise ValueError("there is nothing to copy from")
        start, end = self._starts[row], self._starts[row + 1]
        self._add(
            prior.run_refs[start:end].tolist(),
            prior.run_lens[start:end].tolist(),
            prior.run_ats[start:end].tolist(),
            prior.digests[row].tobytes(),
        )

    def _add(self, refs: list[int], lens: list[int], ats: list[int], digest: bytes) -> None:
        self._counts.append(len(refs))
        self._refs.extend(refs)
        self._lens.extend(lens)
        self._ats.extend(ats)
        self._digests.append(digest)


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name
