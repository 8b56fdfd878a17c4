"""A folder with its content's whereabouts, in columns; what changed between two of them; its digest.

Pure. The same columns serve home's catalogue (whole) and the manifest (rows that changed), see docs/spec/store.md,
section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exclave import codec
from exclave.codec import b64, unb64
from exclave.crypto import hashing
from exclave.crypto.hashing import DIGEST_BYTES
from exclave.listing import STATS, TRAVELLING, Extra, Listing

Ints = NDArray[np.int64]
Digests = NDArray[np.uint8]


@dataclass(slots=True)
class Folder:
    """One folder: n entries, m runs of chunks. `run_refs` and `run_lens` hold the runs of all rows, in order."""

    path: bytes
    names: list[bytes]
    stats: Ints  # (n, 8)
    page_bytes: Ints  # (n,)
    run_counts: Ints  # (n,)
    run_refs: Ints  # (m,)
    run_lens: Ints  # (m,)
    run_ats: Ints  # (m,): where in the file: page number if cut by page, else byte offset
    digests: Digests  # (n, 32)
    extras: dict[int, Extra] = field(default_factory=dict[int, Extra])

    def run_starts(self) -> Ints:
        """For each row, where its runs begin; shape (n + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.run_counts)])

    def rows(self, indices: Ints) -> Folder:
        """Only the given rows (ascending)."""
        runs = _run_positions(self.run_starts(), indices)
        places = {int(row): at for at, row in enumerate(indices)} if self.extras else {}
        return Folder(
            self.path,
            [self.names[row] for row in indices.tolist()],
            self.stats[indices],
            self.page_bytes[indices],
            self.run_counts[indices],
            self.run_refs[runs],
            self.run_lens[runs],
            self.run_ats[runs],
            self.digests[indices],
            {places[row]: extra for row, extra in self.extras.items() if row in places},
        )

    def listing(self) -> Listing:
        """The port's view of it, for comparison with what stands there now."""
        return Listing(
            self.path,
            self.names,
            self.stats,
            np.full(len(self.names), -1, np.int64),
            self.page_bytes.astype(np.int32),
            self.extras,
        )


def empty(path: bytes) -> Folder:
    """A folder without entries."""
    none = np.zeros(0, np.int64)
    return Folder(
        path,
        [],
        np.zeros((0, STATS), np.int64),
        none,
        none,
        none,
        none,
        none,
        np.zeros((0, DIGEST_BYTES), np.uint8),
    )


def names_column(names: list[bytes]) -> bytes:
    """Each name followed by a zero byte."""
    return b"\0".join(names) + b"\0" if names else b""


def folder_digest(folder: Folder, list_key: bytes) -> bytes:
    """Digest of the complete folder: names, attributes, contents, extras."""
    stats = np.ascontiguousarray(folder.stats[:, :TRAVELLING].T, dtype="<i8")
    return hashing.digest(
        codec.lengths_prefixed(
            folder.path,
            names_column(folder.names),
            stats.tobytes(),
            np.ascontiguousarray(folder.digests).tobytes(),
            codec.encode(extras_document(folder.extras)),
        ),
        list_key,
    )


def root_digest(folders: list[tuple[bytes, bytes]], list_key: bytes) -> bytes:
    """Integrity root over (path, folder digest) pairs."""
    parts = [part for pair in sorted(folders) for part in pair]
    return hashing.digest(codec.lengths_prefixed(*parts), list_key)


def changed_rows(prior: Folder, now: Folder) -> tuple[Ints, Ints, list[bytes]]:
    """Rows of `now` that are new or differ, for each row of `now` its row in `prior` (or -1), and names that went.

    Equal means: same attributes that travel, same page size, same extras and same content digest.
    """
    at = {name: row for row, name in enumerate(prior.names)}
    before = np.array([at.get(name, -1) for name in now.names], dtype=np.int64)
    known = before >= 0
    same = known.copy()
    if known.any():
        old = before[known]
        same[known] = (
            (now.stats[known, :TRAVELLING] == prior.stats[old, :TRAVELLING]).all(axis=1)
            & (now.page_bytes[known] == prior.page_bytes[old])
            & (now.digests[known] == prior.digests[old]).all(axis=1)
        )
    for row in now.extras.keys() | {i for i, o in enumerate(before.tolist()) if o in prior.extras}:
        if same[row] and now.extras.get(row) != prior.extras.get(int(before[row])):
            same[row] = False
    here = set(now.names)
    return np.flatnonzero(~same), before, [name for name in prior.names if name not in here]


def runs_of(references: Ints, places: Ints) -> tuple[Ints, Ints, Ints]:
    """References of consecutive chunks as runs: (first reference, count, place of the first)."""
    if not len(references):
        return references, references, references
    first = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(np.diff(references) != 1) + 1])
    return references[first], np.diff(np.append(first, len(references))), places[first]


def references_of(run_refs: Ints, run_lens: Ints) -> Ints:
    """The references that runs stand for, one a chunk."""
    if not len(run_refs):
        return np.zeros(0, np.int64)
    ends = np.cumsum(run_lens)
    return np.repeat(run_refs - (ends - run_lens), run_lens) + np.arange(int(ends[-1]), dtype=np.int64)


def extras_document(extras: dict[int, Extra]) -> dict[str, object]:
    """Extras as a document."""
    return {str(row): _extra_document(extra) for row, extra in extras.items()}


def extras_from(document: dict[str, dict[str, Any]], rows: int) -> dict[int, Extra]:
    """Extras out of a document. Raises Tampered or KeyError, ValueError, TypeError when malformed."""
    extras: dict[int, Extra] = {}
    for text, fields in document.items():
        row = int(text)
        if not 0 <= row < rows or str(row) != text:
            raise ValueError("extras of a row that does not exist")
        extras[row] = _extra_from(fields)
    return extras


def _extra_document(extra: Extra) -> dict[str, object]:
    document: dict[str, object] = {}
    if "target" in extra:
        document["target"] = b64(extra["target"])
    if "twin" in extra:
        document["twin"] = b64(extra["twin"])
    if "device" in extra:
        document["device"] = extra["device"]
    if "xattrs" in extra:
        document["xattrs"] = [[b64(name), b64(value)] for name, value in sorted(extra["xattrs"].items())]
    if "holes" in extra:
        document["holes"] = [list(pair) for pair in extra["holes"]]
    if "note" in extra:
        document["note"] = extra["note"]
    return document


def _extra_from(fields: dict[str, Any]) -> Extra:
    extra = Extra()
    for name, value in fields.items():
        match name:
            case "target":
                extra["target"] = unb64(value)
            case "twin":
                extra["twin"] = unb64(value)
            case "device":
                extra["device"] = int(value)
            case "note":
                extra["note"] = str(value)
            case "xattrs":
                extra["xattrs"] = {unb64(key): unb64(content) for key, content in value}
            case "holes":
                extra["holes"] = [(int(start), int(length)) for start, length in value]
            case _:
                raise ValueError("an unknown extra")
    return extra


def _run_positions(starts: Ints, rows: Ints) -> Ints:
    """Positions, in the run columns, of all runs of the given rows."""
    counts = starts[rows + 1] - starts[rows]
    if not counts.sum():
        return np.zeros(0, np.int64)
    ends = np.cumsum(counts)
    return np.repeat(starts[rows] - (ends - counts), counts) + np.arange(int(ends[-1]), dtype=np.int64)
