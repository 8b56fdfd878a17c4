"""Which entries the operator wants left out."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable

from exclave.registers.files.walking import join


def rule(patterns: tuple[str, ...]) -> Callable[[bytes, bytes], bool] | None:
    """Says of (folder, name) whether it is left out; None when nothing is.

    A pattern is a shell pattern (`*` also matches `/`). With a slash in it, it is compared with the path from the
    root (a leading slash is allowed), otherwise with the name alone. A folder left out is not entered.
    """
    if not patterns:
        return None
    paths = [pattern.strip("/") for pattern in patterns if "/" in pattern.rstrip("/")]
    names = [pattern.rstrip("/") for pattern in patterns if "/" not in pattern.rstrip("/")]
    by_path, by_name = _expression(paths), _expression(names)

    def left_out(folder: bytes, name: bytes) -> bool:
        return by_name.match(name) is not None or by_path.match(join(folder, name)) is not None

    return left_out


def _expression(patterns: list[str]) -> re.Pattern[bytes]:
    nothing = r"(?!)"
    return re.compile(os.fsencode("|".join(map(fnmatch.translate, patterns)) or nothing), re.DOTALL)
