"""The ratios as an SVG: a row of bars for every data set, a group for every act, a bar for every peer, goals marked."""

from __future__ import annotations

from html import escape

from peers_report import AGAINST_RESTIC, CELLS, FIRST, PIPE_FIRST, WORDS, Result, ratio, variants

PANEL_WIDTH, PANEL_HEIGHT, LEFT, TOP = 860, 190, 60, 56
COLOURS = {"restic": "#2f6f8f", "borg": "#8a5a9e", "pipe": "#8c8c8c"}
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 } .small { font-size: 10px; fill: #555 }
.title { font-size: 15px; font-weight: 600 } .axis { stroke: #bbb } .one { stroke: #444; stroke-dasharray: 4 3 }
.goal { stroke: #c0392b; stroke-width: 2.5 } .range { stroke: #222 } .bad { fill: #c0392b }
@media (prefers-color-scheme: dark) { text { fill: #eee } .small { fill: #aaa } .axis { stroke: #555 }
.one, .range { stroke: #ddd } }
"""


def limit(name: str, peer: str, cell: str) -> float | None:
    """The goal for the CPU ratio of one bar, other than being below 1."""
    if peer == "restic":
        return FIRST.get(name) if cell == "first" else AGAINST_RESTIC.get(cell)
    return PIPE_FIRST if peer == "pipe" and cell == "first" else None


def draw(results: list[Result]) -> str:
    """The whole picture; one panel for each set and each way of ours."""
    panels = [(result, way) for result in results for way in variants(result)]
    height = TOP + len(panels) * (PANEL_HEIGHT + 62)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {PANEL_WIDTH + LEFT + 20} {height}" role="img">',
        "<title>CPU seconds of exclave as a share of each peer's</title>",
        f"<style>{STYLE}</style>",
        f'<text class="title" x="{LEFT}" y="22">CPU seconds, exclave over each peer (lower is better)</text>',
    ]
    at = LEFT
    for peer, colour in COLOURS.items():
        out.append(f'<rect x="{at}" y="32" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{at + 17}" y="42">{"tar, zstd, age" if peer == "pipe" else peer}</text>')
        at += 110
    out.append(f'<line class="goal" x1="{at}" x2="{at + 16}" y1="38" y2="38"/>')
    out.append(
        f'<text x="{at + 21}" y="42">goal; dashed: as much as the peer; thin line: least to greatest pair</text>'
    )
    for number, (result, way) in enumerate(panels):
        out += _panel(result, way, TOP + number * (PANEL_HEIGHT + 62))
    return "\n".join([*out, "</svg>"]) + "\n"


def _panel(result: Result, way: str, top: int) -> list[str]:
    found = {
        (cell, peer): got
        for cell in CELLS
        for peer in COLOURS
        if (got := ratio(result, way, peer, cell, "cpu_seconds")) is not None
    }
    if not found:
        return []
    # a bar far above all others would flatten them: it is cut, and its figure says how high it is
    most = min(3.0, max(1.1, *(got.most for got in found.values())))
    base = top + 24 + PANEL_HEIGHT

    def y(value: float) -> float:
        return base - min(value, most) / most * (PANEL_HEIGHT - 14)

    title = f"{result['title']} ({result['bytes'] / 1e6:,.0f} MB), {way}"
    out = [f'<text x="{LEFT}" y="{top + 16}" font-weight="600">{escape(title)}</text>']
    for value in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0):
        if value <= most:
            kind = "one" if value == 1.0 else "axis"
            out.append(
                f'<line class="{kind}" x1="{LEFT}" x2="{LEFT + PANEL_WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            )
            out.append(
                f'<text class="small" x="{LEFT - 8}" y="{y(value) + 3:.1f}" text-anchor="end">{value:g}x</text>'
            )
    group = PANEL_WIDTH / len(CELLS)
    for place, cell in enumerate(CELLS):
        start = LEFT + place * group
        out.append(
            f'<text x="{start + group / 2:.1f}" y="{base + 18}" text-anchor="middle">{WORDS[cell]}</text>'
        )
        for order, (peer, colour) in enumerate(COLOURS.items()):
            got = found.get((cell, peer))
            if got is None:
                continue
            x, width = start + 16 + order * 46, 38
            bad = got.value > (limit(result["set"], peer, cell) or 1.0)
            said = f"{peer}, {WORDS[cell]}: {got}"
            out.append(
                f'<rect x="{x:.1f}" y="{y(got.value):.1f}" width="{width}" height="{base - y(got.value):.1f}" '
                f'fill="{colour}"><title>{escape(said)}</title></rect>'
            )
            middle = x + width / 2
            out.append(
                f'<line class="range" x1="{middle:.1f}" x2="{middle:.1f}" '
                f'y1="{y(got.least):.1f}" y2="{y(got.most):.1f}"/>'
            )
            style = "small bad" if bad and peer != "pipe" else "small"
            out.append(
                f'<text class="{style}" x="{middle:.1f}" y="{y(max(got.value, got.most)) - 4:.1f}" '
                f'text-anchor="middle">{got.value:.2f}</text>'
            )
            goal = limit(result["set"], peer, cell)
            if goal is not None and goal <= most:
                out.append(
                    f'<line class="goal" x1="{x - 3:.1f}" x2="{x + width + 3:.1f}" '
                    f'y1="{y(goal):.1f}" y2="{y(goal):.1f}"/>'
                )
    return out
