"""Names of objects in a store: one alphabet for every adapter, so that no name can leave its place."""

from __future__ import annotations

import re

MAX_NAME = 200  # characters
_PART = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def is_part(part: str) -> bool:
    """Whether `part` may stand between slashes."""
    return _PART.fullmatch(part) is not None and part not in {".", ".."}


def parts(name: str) -> list[str]:
    """The parts of an object's name. Raises ValueError outside the port's alphabet (`stores.base.Store`)."""
    found = name.split("/")
    if len(name) > MAX_NAME or not all(is_part(part) for part in found):
        raise ValueError(f"not the name of an object: {name[:MAX_NAME]!r}")
    return found


def folder(prefix: str) -> list[str]:
    """The parts of a listing's prefix: a folder with its slash, or "". Raises ValueError for anything else."""
    if not prefix:
        return []
    if not prefix.endswith("/"):
        raise ValueError(f"a listing begins at a folder, with its slash: {prefix[:MAX_NAME]!r}")
    return parts(prefix[:-1])
