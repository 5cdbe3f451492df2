"""Bar charts as SVG files. No plotting library is used, so that equal figures give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, BAR, GAP, TOP = 760, 14, 14, 44
COLORS = ("#90a4ae", "#00796b")


def bar_chart(title: str, names: Sequence[str], bars: Sequence[tuple[str, Sequence[float]]], digits: int = 3) -> str:
    """Return the text of an SVG file.

    Args:
        title: heading of the chart.
        names: names of the bars in a group, for the key.
        bars: label of each group and its values, one for each name.
        digits: decimals of the values.
    """
    left = 20 + 7 * max(len(label) for label, _ in bars)
    scale = (WIDTH - left - 70) / max(max(values) for _, values in bars)
    group = len(names) * BAR + GAP
    height = TOP + group * len(bars) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (name, color) in enumerate(zip(names, COLORS[-len(names) :], strict=True)):
        x = left + 140 * index
        lines.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{color}"/>')
        lines.append(f'<text x="{x + 16}" y="35">{escape(name)}</text>')
    for index, (label, values) in enumerate(bars):
        y = TOP + group * index
        lines.append(
            f'<text x="{left - 8}" y="{y + BAR * len(values) / 2 + 4:g}" text-anchor="end">{escape(label)}</text>'
        )
        for place, (value, color) in enumerate(zip(values, COLORS[-len(values) :], strict=True)):
            top, width = y + BAR * place, value * scale
            lines.append(f'<rect x="{left}" y="{top}" width="{width:.1f}" height="{BAR - 2}" fill="{color}"/>')
            lines.append(f'<text x="{left + width + 6:.1f}" y="{top + BAR - 4}">{value:.{digits}f}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
