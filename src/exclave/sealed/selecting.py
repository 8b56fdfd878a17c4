"""Selecting one file or folder of a snapshot. Pure."""

from __future__ import annotations

import numpy as np

from exclave.errors import Tampered
from exclave.listing import ROOT
from exclave.sealed.folders import Folder, Ints


def select(folders: dict[bytes, Folder], only: bytes) -> dict[bytes, Folder]:
    """The folders of a snapshot that hold `only` (a path; no leading slash), itself kept under its path. Empty if none.

    Of the folders above it, only the entries that lead to it are kept. A hard link whose first name is left
    out gets the content of that name. Raises Tampered when a folder or a first name is missing.
    """
    parent, _, name = only.rpartition(b"/")
    above = folders.get(parent)
    if above is None or name not in above.names:
        return {}
    chosen: dict[bytes, Folder] = {}
    path = b""
    for part in only.split(b"/"):
        if path not in folders:
            raise _bad("a folder whose own folder is missing")
        folder = folders[path]
        keep = {part} if path else {part, ROOT}
        rows = [row for row, entry in enumerate(folder.names) if entry in keep]
        chosen[path] = folder.rows(np.array(rows, dtype=np.int64))
        path = path + b"/" + part if path else part
    inside = only + b"/"
    chosen |= {path: folder for path, folder in folders.items() if path == only or path.startswith(inside)}
    return {path: _with_own_content(folder, folders, chosen) for path, folder in chosen.items()}


def _with_own_content(folder: Folder, folders: dict[bytes, Folder], chosen: dict[bytes, Folder]) -> Folder:
    """Hard links whose first name is not chosen, as files of their own."""
    orphans = {
        row: extra["twin"]
        for row, extra in folder.extras.items()
        if "twin" in extra and not _has(chosen, extra["twin"])
    }
    if not orphans:
        return folder
    extras = {row: extra for row, extra in folder.extras.items() if row not in orphans}
    counts, digests, pages = folder.run_counts.copy(), folder.digests.copy(), folder.page_bytes.copy()
    starts = folder.run_starts()
    pieces: list[tuple[Ints, Ints, Ints]] = []
    for row in range(len(folder.names)):
        source, at = folder, row
        if row in orphans:
            parent, _, name = orphans[row].rpartition(b"/")
            if not _has(folders, orphans[row]):
                raise _bad("a hard link to a name that is missing")
            source = folders[parent]
            at = source.names.index(name)
            counts[row], digests[row], pages[row] = (
                source.run_counts[at],
                source.digests[at],
                source.page_bytes[at],
            )
            if at in source.extras:
                extras[row] = source.extras[at]
        begin = source.run_starts() if source is not folder else starts
        runs = slice(int(begin[at]), int(begin[at + 1]))
        pieces.append((source.run_refs[runs], source.run_lens[runs], source.run_ats[runs]))
    refs, lens, ats = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Folder(folder.path, folder.names, folder.stats, pages, counts, refs, lens, ats, digests, extras)


def _bad(why: str) -> Tampered:
    return Tampered("manifest-invalid", "A snapshot contradicts itself", why=why, hint="exclave verify")


def _has(folders: dict[bytes, Folder], path: bytes) -> bool:
    parent, _, name = path.rpartition(b"/")
    return parent in folders and name in folders[parent].names
