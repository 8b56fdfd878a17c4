"""Reads raw WAL just far enough to tell whether every record in it leaves the data as it is; pure.

The layout is that of PostgreSQL's xlog_internal.h and xlogrecord.h in versions 13 to 18, on a little-endian server;
on another one no page header is as it should be, and nothing is taken for quiet.
"""

from __future__ import annotations

import struct

_PAGE = struct.Struct("<HHIQI")  # magic, flags, timeline, address, bytes left of a record begun before
_SHORT_HEADER, _LONG_HEADER = 24, 40
_RECORD = struct.Struct("<IIQBBxxI")  # length, transaction, previous record, info, resource manager, CRC
_ALIGNMENT = 8
_MOST_RECORD_BYTES = 1 << 20
_XLOG, _STANDBY = 0, 8  # resource managers
_SWITCH = (_XLOG, 0x40)
_HARMLESS = frozenset(
    {
        _SWITCH,
        (_XLOG, 0x10),  # an online checkpoint
        (_XLOG, 0x20),  # nothing at all
        (_XLOG, 0x50),  # the end of a backup
        (_XLOG, 0xA0),  # a page in which a hint was set: what it says stands elsewhere, and may be lost
        (_XLOG, 0xE0),  # where an online checkpoint began (17 and later)
        (_STANDBY, 0x10),  # which transactions are running
    }
)
"""What an idle server writes by itself, or for a backup. Not among them: the checkpoint of a shutdown, because
what is done to a server that does not run leaves no record."""


class WalReading:
    """Feed it the WAL from `start`, the end of a record. It stops for good at the first record that may matter.

    `position` is the end of the last record that was whole and harmless.
    """

    def __init__(self, start: int, *, timeline: int, page_bytes: int, segment_bytes: int) -> None:
        self.position = start
        self._timeline = timeline
        self._page_bytes = page_bytes
        self._segment_bytes = segment_bytes
        self._data = bytearray()
        self._at = start  # position of the first byte of `_data`
        self._previous = 0
        self._believed = True

    def feed(self, data: bytes | memoryview) -> bool:
        """False when something may have changed, or when this is no WAL that we know."""
        self._data += data
        while True:
            self._forget()
            header = self._take(self.position, _RECORD.size)
            if header is None:
                return self._believed
            record, after_header = header
            length, _, previous, info, manager, _ = _RECORD.unpack(record)
            kind = (manager, info & 0xF0)
            if kind not in _HARMLESS or not _RECORD.size <= length <= _MOST_RECORD_BYTES:
                return False
            if previous >= self.position or (self._previous and previous != self._previous):
                return False
            body = self._take(after_header, length - _RECORD.size)
            if body is None:
                return self._believed
            self._previous = self.beginning(self.position)
            end = -(-body[1] // _ALIGNMENT) * _ALIGNMENT
            if kind == _SWITCH:  # the rest of the segment is empty
                end = -(-end // self._segment_bytes) * self._segment_bytes
            self.position = end

    def reached(self, target: int) -> bool:
        """Whether all records before `target` were read; a position before or after a page's header is the same."""
        return self.beginning(self.position) >= self.beginning(target)

    def beginning(self, position: int) -> int:
        """Where a record that follows `position` begins: after the page's header."""
        return position + self._header_bytes(position)

    def _header_bytes(self, position: int) -> int:
        if position % self._page_bytes:
            return 0
        return _SHORT_HEADER if position % self._segment_bytes else _LONG_HEADER

    def _take(self, position: int, length: int) -> tuple[bytes, int] | None:
        """`length` bytes of records from `position` and where they end; None when they are not all there.

        Page headers between them are left out. A wrong one ends the reading: `_believed` becomes false.
        """
        found = b""
        while len(found) < length:
            skipped = self._header_bytes(position)
            if skipped:
                page = self._peek(position, skipped)
                if page is None:
                    return None
                _, _, timeline, address, _ = _PAGE.unpack_from(page)
                if timeline != self._timeline or address != position:
                    self._believed = False
                    return None
                position += skipped
            part = self._peek(position, min(length - len(found), -position % self._page_bytes))
            if part is None:
                return None
            found += part
            position += len(part)
        return found, position

    def _peek(self, position: int, length: int) -> bytes | None:
        offset = position - self._at
        return bytes(self._data[offset : offset + length]) if offset + length <= len(self._data) else None

    def _forget(self) -> None:
        """Drop what lies before the position (after a switch it may not have come yet)."""
        done = min(self.position - self._at, len(self._data))
        del self._data[:done]
        self._at += done
