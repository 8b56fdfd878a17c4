"""A reader of TOML tables that hands out checked values and refuses what nobody asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

from exclave.errors import Misconfigured

T = TypeVar("T")


class Table:
    """One table of the file: hands out checked values, remembers what was asked for, refuses the rest."""

    def __init__(self, values: dict[str, Any], where: str, file: Path) -> None:
        self._left, self._where, self._file = dict(values), where, file
        self._known: list[str] = []

    def text(self, key: str, default: str | None = None, *, of: re.Pattern[str] | None = None) -> str:
        """A string; without a default it must be there; `of` is the form it must have."""
        value = self._take(key, str, default)
        if of is not None and value != default and not of.fullmatch(value):
            raise self.bad(key, f"{value!r} is not of the form it must have")
        return value

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        """A string that must be one of a few."""
        value = self._take(key, str, None)
        if value not in known:
            raise self.bad(key, f"{value!r} is none of {', '.join(known)}{nearest(value, known)}")
        return value

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """A whole number between two bounds, both allowed."""
        value = self._take(key, int, default)
        if not least <= value <= most:
            raise self.bad(key, f"{value} is not between {least} and {most}")
        return value

    def flag(self, key: str, *, default: bool = False) -> bool:
        """True or false."""
        return self._take(key, bool, default)

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings, empty when absent."""
        value: list[Any] = self._take(key, list, [])
        if not all(isinstance(one, str) for one in value):
            raise self.bad(key, "it is a list of strings")
        return tuple(value)

    def path(self, key: str, default: str | None = None) -> Path:
        """A path, relative to the file."""
        text = self._take(key, str, default)
        if "\0" in text:
            raise self.bad(key, "no path has a zero character")
        try:
            return self._file.parent / Path(text).expanduser()
        except RuntimeError as error:
            raise self.bad(key, "nobody here has the home folder that its ~ means") from error

    def maybe_path(self, key: str) -> Path | None:
        """A path, or None when absent."""
        if key in self._left:
            return self.path(key)
        self._known.append(key)
        return None

    def table(self, key: str) -> Table:
        """A table inside this one; an empty one when absent."""
        return Table(self._take(key, dict, {}), f"[{key}]", self._file)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, empty when absent."""
        rows: list[Any] = self._take(key, list, [])
        if not all(isinstance(row, dict) for row in rows):
            raise self.bad(key, f"write [[{key}]]")
        return [
            Table(cast("dict[str, Any]", row), f"[[{key}]] number {at}", self._file)
            for at, row in enumerate(rows, 1)
        ]

    def has(self, key: str) -> bool:
        """Whether the file has this key."""
        return key in self._left

    def end(self) -> None:
        """Raises Misconfigured for the first key that nobody asked for."""
        for key in self._left:
            raise self.bad(
                key, f"there is no such setting{nearest(key, self._known)}", error_id="unknown-setting"
            )

    def bad(self, key: str, why: str, *, error_id: str = "setting-wrong") -> Misconfigured:
        """The error for a key whose value cannot be used."""
        place = f"`{key}` in {self._where}" if self._where else f"`{key}`"
        return Misconfigured(
            error_id, f"{place} of {self._file} cannot be used", why=why, hint="exclave config check"
        )

    def _take(self, key: str, kind: type[T], default: T | None) -> T:
        self._known.append(key)
        if key not in self._left:
            if default is None:
                raise self.bad(key, "it is missing")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.bad(key, f"it is a {type(value).__name__} where a {kind.__name__} is expected")
        return value


def nearest(word: str, known: Iterable[str]) -> str:
    """`; the nearest is ...` for the end of a sentence, or nothing when no known word is near."""
    import difflib  # noqa: PLC0415  only when somebody misspelt a word

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; the nearest is `{found[0]}`" if found else ""
