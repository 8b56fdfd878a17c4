"""What stands in one folder, in columns: the shape in which registers tell the store what there is.

Columns instead of objects, because a register may have hundreds of thousands of files and Python pays per object.
Every register is a tree of entries: a PostgreSQL cluster is its data directory, a SQLite database one file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

# Columns of `Listing.stats`. The first five travel to the embassies; the others stay at home, where they tell
# whether a file can have changed since it was read.
MODE, UID, GID, SIZE, MTIME, CTIME, INODE, DEVICE = range(8)
STATS = 8
TRAVELLING = 5

# Values of `Listing.content`; zero and above is the ordinal under which slabs carried the file's bytes.
NO_CONTENT = -1  # a directory, a link, a device, an empty file
AS_BEFORE = -2  # the same bytes as under the same path in the previous snapshot

ROOT = b"."  # the entry, in the listing of path b"", that describes the register's own top directory


class Extra(TypedDict, total=False):
    """What few entries have; bytes, because names need not be UTF-8."""

    target: bytes  # symbolic link: where it points
    twin: bytes  # hard link: path, from the register's root, of the entry that has the content
    device: int  # device node: st_rdev
    xattrs: dict[bytes, bytes]  # extended attributes; POSIX ACLs are among them, as the kernel gives them
    holes: list[tuple[int, int]]  # sparse file: (offset, length) of its data; its content is these, joined
    note: str  # what could not be captured, and why


@dataclass(slots=True)
class Listing:
    """All entries of one folder, or those of it that changed.

    `path` is relative to the register's root (b"" is the root), parts joined by b"/", no leading or trailing slash.
    `names` are sorted bytewise and unique. `stats` is int64 of shape (len(names), 8). `content` is int64 of
    shape (len(names),). `page_bytes` is int32 of shape (len(names),): 0, or the page size at which the file was cut.
    """

    path: bytes
    names: list[bytes]
    stats: NDArray[np.int64]
    content: NDArray[np.int64]
    page_bytes: NDArray[np.int32]
    extras: dict[int, Extra] = field(default_factory=dict[int, Extra])
