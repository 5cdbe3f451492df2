"""Colours, markers and line styles of plots: at most eight series, which differ in grey and for colour blindness."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SERIES = 8
"""Largest number of series in a plot."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9", "#9a8c00")
"""Colours of series on a light background: Okabe and Ito 2008, "Color Universal Design". Their yellow is darker here,
because it is invisible on white."""

COLORS_ON_DARK = ("#3d9fe0", "#f0803c", "#17b890", "#e39ac2", "#f2f2f2", "#e69f00", "#8fd0f5", "#f0e442")
"""The same hues on a dark background."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
"""Markers and line styles of matplotlib."""


def spread_out(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions of labels near `positions`, at least `gap` apart and from `low` to `high`, in the same order.

    Labels are shifted as little as a group allows. If the range is too small for all labels, the gap is smaller.
    """
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    gap = min(gap, (high - low) / max(len(order) - 1, 1))
    groups: list[tuple[list[float], float]] = []  # positions of the labels of a group, and the place of its first one
    for index in order:
        members, start = [positions[index]], positions[index]
        while groups and groups[-1][1] + len(groups[-1][0]) * gap > start:
            members = groups.pop()[0] + members
            start = sum(value - number * gap for number, value in enumerate(members)) / len(members)
        groups.append((members, min(max(start, low), high - (len(members) - 1) * gap)))
    placed = [start + number * gap for members, start in groups for number in range(len(members))]
    placed = _within(placed, gap, low, high)
    result = [0.0] * len(positions)
    for index, value in zip(order, placed, strict=True):
        result[index] = value
    return result


def _within(placed: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return ascending positions that are moved up and then down until they fit."""
    raised: list[float] = []
    for value in placed:
        raised.append(max(value, raised[-1] + gap if raised else low))
    fitted: list[float] = []
    for value in reversed(raised):
        fitted.append(min(value, fitted[-1] - gap if fitted else high))
    return fitted[::-1]
