"""Quick checks of a database file's header and free list (https://sqlite.org/fileformat2.html); pure.

They find a file that was cut, zeroed or overwritten at its start without reading it. `PRAGMA integrity_check`,
which reads everything, runs after a restore.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

HEADER_BYTES = 100
MAGIC = b"SQLite format 3\x00"
MIN_PAGE_BYTES = 512

_MAX_PAGE_BYTES = 65536

Read = Callable[[int, int], bytes]
"""(offset, length) -> bytes; fewer at the end of the file."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first 100 bytes say."""

    page_bytes: int
    wal: bool
    change_counter: int
    pages: int  # 0 when an old version of SQLite wrote the file last
    first_trunk: int
    free_pages: int


def header(data: bytes) -> Header | None:
    """The header, or None when this is not the start of a database."""
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        return None
    (page_bytes,) = struct.unpack_from(">H", data, 16)
    page_bytes = _MAX_PAGE_BYTES if page_bytes == 1 else page_bytes
    if page_bytes < MIN_PAGE_BYTES or page_bytes & (page_bytes - 1):
        return None
    change_counter, pages, first_trunk, free_pages = struct.unpack_from(">4I", data, 24)
    return Header(page_bytes, data[18] == 2, change_counter, pages, first_trunk, free_pages)


def fault(read: Read, size_bytes: int) -> str | None:
    """What is wrong with a complete database file, in words; None when nothing is."""
    head = header(read(0, HEADER_BYTES))
    if head is None:
        return "it does not begin like a SQLite database"
    if size_bytes % head.page_bytes or size_bytes != head.pages * head.page_bytes:
        return f"{size_bytes} bytes are not the {head.pages} pages of {head.page_bytes} that its header says"
    return _free_list_fault(read, head)


def _free_list_fault(read: Read, head: Header) -> str | None:
    """Walk the trunk pages; their number is bounded by the count in the header."""
    most, counted, trunk = head.page_bytes // 4 - 2, 0, head.first_trunk
    while trunk:
        if not 2 <= trunk <= head.pages or counted >= head.free_pages:
            return "its list of free pages leads astray"
        following, leaves = struct.unpack(">2I", read((trunk - 1) * head.page_bytes, 8))
        if leaves > most:
            return "a page of its list of free pages is malformed"
        counted += 1 + leaves
        trunk = following
    if counted != head.free_pages:
        return f"{counted} free pages instead of {head.free_pages}"
    return None
