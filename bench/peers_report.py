"""From measured rounds to ratios, goals and a table. Ratios are of medians; the range is over single pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

CELLS = ("first", "same", "change", "restore", "verify")
WORDS = {
    "first": "first backup",
    "same": "nothing changed",
    "change": "after the change",
    "restore": "full restore",
    "verify": "full verify",
}
PEERS = ("restic", "borg", "pipe")
Result = dict[str, Any]  # one data set as it is stored in bench/results; see `peers.py`

FIRST = {"linux": 0.5, "random": 0.4, "pgbench": 0.8}
AGAINST_RESTIC = {"same": 0.4, "restore": 0.8, "verify": 0.6}
PIPE_FIRST = 2.0
GROWTH = 0.15
PEAK_BYTES = 400e6


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours over theirs: of the medians, and the least and greatest of single pairs."""

    value: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.least:.2f}-{self.most:.2f}]"


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise, what was measured, and whether that keeps it. A ratio or share is kept when at most `limit`."""

    what: str
    limit: float
    value: float
    unit: str = "x"
    strict: bool = False

    @property
    def met(self) -> bool:
        """Strict goals ("ahead of") are not met by a draw."""
        return self.value < self.limit if self.strict else self.value <= self.limit

    def __str__(self) -> str:
        sign = "<" if self.strict else "<="
        verdict = "met    " if self.met else "NOT MET"
        return f"{verdict}  {self.what}: {self.value:.3g} {self.unit} ({sign} {self.limit:g})"


def pairs(result: Result, peer: str) -> list[Result]:
    """The pairs with one peer."""
    return [pair for pair in result["pairs"] if pair["peer"] == peer]


def cost(side: Result, cell: str, measure: str) -> float:
    """`measure` is a field of a cost, or `bytes` (defined for first and change)."""
    if measure == "bytes":
        return float(side["bytes"][cell])
    return float(side["cells"][cell][measure])


def ratio(result: Result, variant: str, peer: str, cell: str, measure: str) -> Ratio | None:
    """None when the two were not measured together."""
    both = [
        (pair["ours"][variant], pair["theirs"]) for pair in pairs(result, peer) if variant in pair["ours"]
    ]
    if not both:
        return None
    ours = [cost(one, cell, measure) for one, _ in both]
    theirs = [cost(other, cell, measure) for _, other in both]
    if min(theirs) <= 0:
        return None
    single = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Ratio(median(ours) / median(theirs), min(single), max(single))


def goals(result: Result, variant: str) -> list[Goal]:
    """Every goal that this data set decides for one way of ours."""
    name, found = result["set"], list[Goal]()

    def add(
        what: str, limit: float, peer: str, cell: str, *, measure: str = "cpu_seconds", strict: bool = False
    ) -> None:
        got = ratio(result, variant, peer, cell, measure)
        if got is not None:
            found.append(Goal(what, limit, got.value, strict=strict))

    for peer in ("restic", "borg"):
        for cell in CELLS:
            for measure, word in (("cpu_seconds", "CPU"), ("wall_seconds", "wall")):
                add(f"ahead of {peer}, {WORDS[cell]}, {word}", 1.0, peer, cell, measure=measure, strict=True)
    if name in FIRST:
        add(f"{WORDS['first']}, CPU of restic's", FIRST[name], "restic", "first")
    for cell, limit in AGAINST_RESTIC.items():
        add(f"{WORDS[cell]}, CPU of restic's", limit, "restic", cell)
    add(f"{WORDS['first']}, CPU of the pipe's", PIPE_FIRST, "pipe", "first")
    if name == "pgbench":
        growths = [ratio(result, variant, peer, "change", "bytes") for peer in ("restic", "borg")]
        known = [growth.value for growth in growths if growth is not None]
        if known:
            # the better peer stores less, so the ratio against it is the greater one
            found.append(Goal("bytes of the change, of the better peer's", GROWTH, max(known)))
    sides = [pair["ours"][variant] for pair in result["pairs"] if variant in pair["ours"]]
    if sides:
        peak = max(cost(side, cell, "peak_bytes") for side in sides for cell in CELLS)
        found.append(Goal("peak memory", PEAK_BYTES / 1e6, peak / 1e6, "MB"))
    return found


def variants(result: Result) -> list[str]:
    """The ways of ours in a result, in order of first sight."""
    return list(dict.fromkeys(name for pair in result["pairs"] for name in pair["ours"]))


def _middle(sides: Iterable[Result], cell: str, measure: str) -> float:
    return median(cost(side, cell, measure) for side in sides)


def _cell(sides: list[Result], cell: str) -> str:
    return f"{_middle(sides, cell, 'wall_seconds'):.2f} ({_middle(sides, cell, 'cpu_seconds'):.2f})"


def table(result: Result) -> str:
    """One data set: seconds of wall (and CPU) of each, ratios of ours to each peer, memory and bytes."""
    lines = [
        f"{result['title']}: {result['bytes'] / 1e6:,.0f} MB in {result['files']:,} files, scale {result['scale']:g}"
    ]
    drift = result["probe"]["drift"]
    lines[0] += f"; machine drift {drift:.2f}x" + (
        " - TOO MUCH, do not trust" if result["probe"]["drifted"] else ""
    )
    present = [peer for peer in PEERS if pairs(result, peer)]
    ways = variants(result)
    rows = [["", *(f"{way} s (CPU)" for way in ways), *(f"{peer} s (CPU)" for peer in present)]]
    rows[0] += [f"{way}/{peer} {word}" for way in ways for peer in present for word in ("CPU", "wall")]
    for cell in CELLS:
        row = [WORDS[cell]]
        row += [
            _cell([pair["ours"][way] for pair in result["pairs"] if way in pair["ours"]], cell)
            for way in ways
        ]
        row += [_cell([pair["theirs"] for pair in pairs(result, peer)], cell) for peer in present]
        for way in ways:
            for peer in present:
                row += [
                    str(ratio(result, way, peer, cell, measure))
                    for measure in ("cpu_seconds", "wall_seconds")
                ]
        rows.append(row)
    for word, cell in (("stored, MB", "first"), ("grown by, MB", "change")):
        row = [word]
        sides = [[pair["ours"][way] for pair in result["pairs"] if way in pair["ours"]] for way in ways]
        sides += [[pair["theirs"] for pair in pairs(result, peer)] for peer in present]
        row += [f"{_middle(side, cell, 'bytes') / 1e6:.1f}" for side in sides]
        for way in ways:
            for peer in present:
                row += [str(ratio(result, way, peer, cell, "bytes")), ""]
        rows.append(row)
    row = ["peak memory, MB"]
    for side in sides:
        row.append(f"{max(cost(one, cell, 'peak_bytes') for one in side for cell in CELLS) / 1e6:.0f}")
    rows.append(row + [""] * (len(rows[0]) - len(row)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    # figures of the tools first, the ratios below them: together they are wider than a terminal
    split = 1 + len(ways) + len(present)
    for low, high in ((1, split), (split, len(widths))):
        for row in rows:
            cells = [row[0].ljust(widths[0]), *(row[n].rjust(widths[n]) for n in range(low, high))]
            if any(cell.strip() for cell in cells[1:]):
                lines.append("  ".join(cells).rstrip())
        lines.append("")
    return "\n".join(lines)
