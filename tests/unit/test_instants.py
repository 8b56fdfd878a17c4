"""Moments as text: one spelling, both ways, and none that could not be read back."""

from __future__ import annotations

import pytest

from exclave import instants
from exclave.errors import Misconfigured, Tampered
from exclave.types import Instant

YEAR_10000 = 253_402_300_800 * 10**9
YEAR_1000 = -30_610_224_000 * 10**9


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_795_269_727_000_000_007, "2026-11-21T14:02:07.000000007Z"),
        (YEAR_10000 - 1, "9999-12-31T23:59:59.999999999Z"),
        (YEAR_1000, "1000-01-01T00:00:00.000000000Z"),
    ],
)
def test_both_ways(instant: int, text: str) -> None:
    assert instants.to_text(Instant(instant)) == text
    assert instants.from_text(text) == instant


@pytest.mark.parametrize("instant", [YEAR_10000, YEAR_1000 - 1, 1 << 70, -(1 << 70)])
def test_a_clock_that_cannot_be_right_dates_nothing(instant: int) -> None:
    with pytest.raises(Misconfigured) as refused:
        instants.to_text(Instant(instant))
    assert refused.value.id == "clock-wrong"


@pytest.mark.parametrize(
    "text", ["", "2026-11-21T14:02:07Z", "2026-13-21T14:02:07.000000000Z", "10000-01-01T00:00:00.000000000Z"]
)
def test_other_spellings(text: str) -> None:
    with pytest.raises(Tampered):
        instants.from_text(text)
