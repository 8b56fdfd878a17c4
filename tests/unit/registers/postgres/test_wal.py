"""WAL in which nothing changes the data is told from WAL in which something may, however it is cut."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from exclave.registers.postgres.wal import WalReading

_PAGE, _SEGMENT = 512, 4096  # small, so that records cross pages and segments often
_HARMLESS = [(0, 0x10), (0, 0x20), (0, 0x50), (0, 0xE0), (8, 0x10)]
_SWITCH = (0, 0x40)


class Writer:
    """Lays records out as the server does."""

    def __init__(self, start, timeline=1):
        self.start, self.at, self.timeline, self.previous = start, start, timeline, start - 64
        self.data = bytearray()

    def _header(self):
        if self.at % _PAGE:
            return
        size = 24 if self.at % _SEGMENT else 40
        self._raw(struct.pack("<HHIQI", 0xD116, 0, self.timeline, self.at, 0).ljust(size, b"\0"))

    def _raw(self, data):
        self.data += data
        self.at += len(data)

    def record(self, kind, extra=0):
        manager, info = kind
        self._header()
        previous, self.previous = self.previous, self.at
        rest = struct.pack("<IIQBBxxI", 24 + extra, 0, previous, info, manager, 7) + b"\x55" * extra
        while rest:
            self._header()
            room = _PAGE - self.at % _PAGE
            self._raw(rest[:room])
            rest = rest[room:]
        self._raw(bytes(-self.at % 8))
        if kind == _SWITCH:
            self._raw(bytes(-self.at % _SEGMENT))
        return self.at


def _read(writer, piece, **other):
    reading = WalReading(
        writer.start, **{"timeline": 1, "page_bytes": _PAGE, "segment_bytes": _SEGMENT} | other
    )
    fine = all(reading.feed(writer.data[at : at + piece]) for at in range(0, len(writer.data), piece))
    return reading, fine


_STARTS = (
    st.integers(1, 4 * _SEGMENT // 8)
    .map(lambda number: number * 8)
    .filter(lambda at: not 0 < at % _SEGMENT < 40 and not 0 < at % _PAGE < 24)
)
_RECORDS = st.lists(st.tuples(st.sampled_from([*_HARMLESS, _SWITCH]), st.integers(0, 1500)), max_size=12)


@given(_STARTS, _RECORDS, st.integers(1, 5000))
def test_harmless_records_are_read_to_their_end(start, records, piece):
    writer = Writer(start)
    for kind, extra in records:
        writer.record(kind, 0 if kind == _SWITCH else extra)
    reading, fine = _read(writer, piece)
    assert fine
    assert reading.position == writer.at
    assert reading.reached(writer.at)
    assert reading.reached(reading.beginning(writer.at))
    assert not reading.reached(reading.beginning(writer.at) + 8)


@given(_STARTS, _RECORDS, st.integers(1, 5000), st.integers(0, 255), st.integers(0, 15))
def test_any_other_record_ends_it(start, records, piece, manager, info):
    kind = (manager, info << 4)
    if kind in {*_HARMLESS, _SWITCH}:
        kind = (10, 0)
    writer = Writer(start)
    for one, extra in records:
        writer.record(one, 0 if one == _SWITCH else extra)
    before = writer.at
    writer.record(kind, 40)
    reading, fine = _read(writer, piece)
    assert not fine
    assert not reading.reached(before + 64)


def test_the_checkpoint_of_a_shutdown_ends_it():
    writer = Writer(640)
    writer.record((0, 0x00), 88)
    assert not _read(writer, 100)[1]


def test_a_record_that_is_not_whole_does_not_count():
    writer = Writer(640)
    end = writer.record((8, 0x10), 300)
    del writer.data[-8:]
    reading, fine = _read(writer, 100)
    assert fine
    assert reading.position == 640
    assert not reading.reached(end)


def test_another_timeline_another_place_and_a_broken_chain_are_not_believed():
    writer = Writer(_SEGMENT)
    writer.record((8, 0x10), 300)
    assert _read(writer, 100)[1]
    assert not _read(writer, 100, timeline=2)[1]
    writer.start = 2 * _SEGMENT
    assert not _read(writer, 100)[1]
    writer = Writer(640)
    writer.record((8, 0x10))
    writer.previous -= 8
    writer.record((8, 0x10))
    assert not _read(writer, 100)[1]


def test_zeros_are_not_wal():
    reading = WalReading(640, timeline=1, page_bytes=_PAGE, segment_bytes=_SEGMENT)
    assert not reading.feed(bytes(100))
