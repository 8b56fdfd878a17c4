"""Reads a tar archive that arrives in pieces, without copying content."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exclave.errors import Tampered

_BLOCK = 512
_NOTHING = bytes(_BLOCK)
_SIGNED_SUM_OFFSET = slice(148, 156)


@dataclass(frozen=True, slots=True)
class Member:
    """The header of one entry. `kind` is `file`, `folder` or `link`; only files have content."""

    name: bytes
    kind: str
    size: int
    mode: int  # permission bits
    mtime_seconds: int
    target: bytes


_KINDS = {b"0": "file", b"\0": "file", b"5": "folder", b"2": "link"}


class TarReader:
    """Feed it the archive in pieces of any length; it gives headers, each followed by its content in views.

    The views are parts of what was fed. Blocks of zeros end nothing: servers before version 15 leave them out,
    so the end of the archive is where the sender ends it; then `finish` must be called.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._content: int = 0  # bytes of the current file still to come
        self._padding = 0

    def feed(self, data: memoryview) -> Iterator[Member | memoryview]:
        """What is in the next piece. Raises Tampered for what is no tar archive."""
        at, end = 0, len(data)
        while at < end:
            if self._content:
                take = min(self._content, end - at)
                yield data[at : at + take]
                self._content -= take
                at += take
            elif self._padding:
                take = min(self._padding, end - at)
                self._padding -= take
                at += take
            else:
                take = min(_BLOCK - len(self._header), end - at)
                self._header += data[at : at + take]
                at += take
                if len(self._header) == _BLOCK:
                    header = bytes(self._header)
                    self._header.clear()
                    if header != _NOTHING:
                        member = _parse(header)
                        self._content = member.size
                        self._padding = -member.size % _BLOCK
                        yield member

    def finish(self) -> None:
        """Raises Tampered if the archive ends inside an entry."""
        if self._content or self._padding or self._header:
            raise _malformed("it ends inside a file")


def _parse(header: bytes) -> Member:
    blank = header[:148] + b" " * 8 + header[156:]
    if _number(header[_SIGNED_SUM_OFFSET]) != sum(blank):
        raise _malformed("a header's checksum is wrong")
    kind = _KINDS.get(header[156:157])
    if kind is None:
        raise _malformed(f"an entry of unknown type {header[156:157]!r}")
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:262] == b"ustar" else b""
    name = (prefix + b"/" + name if prefix else name).rstrip(b"/")
    name = name.removeprefix(b"./")
    if (
        not name
        or name.startswith(b"/")
        or not all(part not in {b"", b".", b".."} for part in name.split(b"/"))
    ):
        raise _malformed(f"an entry is called {name!r}")
    return Member(
        name=name,
        kind=kind,
        size=_number(header[124:136]) if kind == "file" else 0,
        mode=_number(header[100:108]) & 0o7777,
        mtime_seconds=_number(header[136:148]),
        target=header[157:257].partition(b"\0")[0],
    )


def _number(text: bytes) -> int:
    if text[0] & 0x80:  # base 256, for files of 8 GiB and more
        return int.from_bytes(bytes([text[0] & 0x7F]) + text[1:], "big")
    digits = text.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise _malformed("a number in a header is not octal") from error


def _malformed(why: str) -> Tampered:
    return Tampered(
        "backup-stream-malformed",
        "The server's base backup cannot be read",
        why=why,
        hint="exclave doctor",
    )
