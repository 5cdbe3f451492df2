"""A bar chart as an SVG file. It is written here without a library, so that equal figures give equal bytes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, LEFT, BAR, GAP, TOP = 760, 150, 14, 14, 44
COLORS = ("#90a4ae", "#00796b")


def bar_chart(title: str, names: tuple[str, str], bars: Sequence[tuple[str, float, float]]) -> str:
    """
    Args:
        names: what the two bars of a group are, for the key.
        bars: label of a group and its two values, in ms.

    Returns:
        The text of an SVG file.
    """
    scale = (WIDTH - LEFT - 70) / max(max(first, second) for _, first, second in bars)
    group = 2 * BAR + GAP
    height = TOP + group * len(bars) + 6
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)}</text>',
    ]
    for index, (name, color) in enumerate(zip(names, COLORS, strict=True)):
        x = LEFT + 140 * index
        lines.append(f'<rect x="{x}" y="26" width="10" height="10" fill="{color}"/>')
        lines.append(f'<text x="{x + 16}" y="35">{escape(name)}</text>')
    for index, (label, *values) in enumerate(bars):
        y = TOP + group * index
        lines.append(f'<text x="{LEFT - 8}" y="{y + BAR + 4}" text-anchor="end">{escape(label)}</text>')
        for place, (value, color) in enumerate(zip(values, COLORS, strict=True)):
            top, width = y + BAR * place, value * scale
            lines.append(f'<rect x="{LEFT}" y="{top}" width="{width:.1f}" height="{BAR - 2}" fill="{color}"/>')
            lines.append(f'<text x="{LEFT + width + 6:.1f}" y="{top + BAR - 4}">{value:.3f}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
