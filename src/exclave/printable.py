"""Text from outside, as people may see it: nothing in it moves a cursor, turns the line round or begins another."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with everything that is no visible character written as an escape, one line in any case."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def printable_json(text: str) -> str:
    """The same JSON document, with such characters as JSON's own escapes. Its line ends stay."""
    return "\n".join(
        line if line.isprintable() else "".join(c if c.isprintable() else _units(c) for c in line)
        for line in text.split("\n")
    )


def _units(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
