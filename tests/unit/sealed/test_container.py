"""The clear header: round trip, and every malformed field is refused."""

from __future__ import annotations

import pytest

from exclave.errors import Tampered
from exclave.sealed import container
from exclave.sealed.container import Header
from exclave.types import EpochId, RegisterId

HEADER = Header(container.PACK, 4096, bytes(range(32)), RegisterId("ab" * 16), EpochId("cd" * 8), 3, 77, 2)


def test_a_header_is_read_as_it_was_written() -> None:
    fixed = HEADER.fixed()
    assert len(fixed) == container.FIXED_BYTES
    assert container.parse(fixed + b"more") == HEADER
    assert HEADER.object_bytes == 88 + 2 * 1184 + 56 + 4096 + 16


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 0), (7, 2), (8, 0), (8, 4), (9, 2), (10, 0), (10, 5), (11, 1), (12, 0xFF), (15, 1)],
    ids=[
        "magic",
        "format",
        "kind 0",
        "kind 4",
        "suite",
        "nobody",
        "too many",
        "zero",
        "huge",
        "no size class",
    ],
)
def test_malformed_headers_are_refused(at: int, value: int) -> None:
    data = bytearray(HEADER.fixed())
    data[at] = value
    with pytest.raises(Tampered, match="not a well-formed"):
        container.parse(bytes(data))


def test_a_short_object_is_refused() -> None:
    with pytest.raises(Tampered):
        container.parse(HEADER.fixed()[:-1])


def test_index_parts_have_no_recipient() -> None:
    data = bytearray(HEADER.fixed())
    data[8] = container.INDEX
    with pytest.raises(Tampered):
        container.parse(bytes(data))
    data[10] = 0
    assert container.parse(bytes(data)).recipients == 0
