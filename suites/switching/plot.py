"""Plot of the time of a request by the share of shape changes, one line for each strategy, as an SVG file."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suites.switching.costs import Costs
from suites.switching.strategy_names import StrategyNames
from suites.tables.series_plot import write_svg
from suites.tables.series_styles import COLORS, DASHES, MARKERS, MOST_SERIES, spread_out

HALF = 0.5
"""Share of shape changes at which strategies are ordered, and plain steps or CUDA graphs selected."""

STEEP = 2.0
"""A strategy is steep if a request takes this many times as long when every request changes the shape."""

LABEL_WIDTH = 42
"""Longest line of a label in characters."""


@dataclass(frozen=True)
class Line:
    """A strategy in a plot, with its label and its style."""

    costs: Costs
    label: str
    number: int

    @property
    def style(self) -> dict[str, Any]:
        """Keywords of matplotlib for the line."""
        return {"color": COLORS[self.number % len(COLORS)], "linestyle": DASHES[self.number % len(DASHES)]}

    @property
    def marker(self) -> str:
        return MARKERS[self.number % len(MARKERS)]

    def milliseconds(self, share: float) -> float:
        """Return the predicted time of a request in ms."""
        return float(self.costs.means.at(share)) / 1e6

    @property
    def steep(self) -> bool:
        return is_steep(self.costs)


def plot(costs: Sequence[Costs], path: Path, title: str = "") -> None:
    """Write the plot of some strategies.

    Lines are sums of the costs of single changes. Markers are replayed traces. Of plain steps and CUDA graphs, only the
    cheaper variant of a strategy is a candidate. Strategies with wrong outputs are left out. `chosen` selects the
    lines. Steep lines are completely visible in a second panel with a logarithmic scale.

    Args:
        path: the file; its folder is created.
    """
    write_svg(path, title, lambda: _figure(costs, title))


def chosen(candidates: Sequence[Costs]) -> list[Costs]:
    """Return at most `MOST_SERIES` strategies, the cheapest first.

    They are the cheapest of each backend, then the cheapest steep one of each backend, then the cheapest of each
    backend and kind of profile.
    """
    best = drawable(candidates)
    kinds: list[dict[Any, Costs]] = [
        {strategy.record.cell.backend: strategy for strategy in reversed(best)},
        {strategy.record.cell.backend: strategy for strategy in reversed(best) if is_steep(strategy)},
        {(s.record.cell.backend, s.record.cell.options.get("profiles")): s for s in reversed(best)},
    ]
    picked: dict[str, Costs] = {}
    for kind in kinds:
        for strategy in sorted(kind.values(), key=best.index):
            picked.setdefault(strategy.record.cell.id, strategy)
    return sorted(list(picked.values())[:MOST_SERIES], key=best.index)


def drawable(costs: Sequence[Costs]) -> list[Costs]:
    """Return the cheaper variant of each record with correct outputs, the cheapest first."""
    best: dict[str, Costs] = {}
    valid = (strategy for strategy in costs if strategy.is_valid)
    for strategy in sorted(valid, key=lambda strategy: float(strategy.means.at(HALF))):
        best.setdefault(strategy.record.cell.id, strategy)
    return list(best.values())


def is_steep(costs: Costs) -> bool:
    """Return whether changes of shape make a request at least `STEEP` times as long."""
    return bool(costs.means.at(1) > STEEP * costs.means.at(0))


def _lines(costs: Sequence[Costs]) -> list[Line]:
    """Return the chosen strategies with labels."""
    strategies = chosen(costs)
    pairs = zip(strategies, labels_of(strategies), strict=True)
    return [Line(strategy, label, number) for number, (strategy, label) in enumerate(pairs)]


def labels_of(costs: Sequence[Costs]) -> list[str]:
    """Return short labels. A label has all options of its strategy if a shorter one is not unique in its precision."""
    names = StrategyNames([strategy.record for strategy in costs])
    short = [(strategy.record.cell.precision, _short_label(strategy)) for strategy in costs]
    counts = Counter(short)
    return [
        label if counts[precision, label] == 1 else names.of(strategy.record, strategy.cuda_graph)
        for (precision, label), strategy in zip(short, costs, strict=True)
    ]


def _short_label(costs: Costs) -> str:
    options = costs.record.cell.options
    profiles = {"per_shape": "one profile per shape", "ranges": "profiles for ranges", "dynamic": "one dynamic profile"}
    plain = "" if costs.record.cell.device == "cpu" else "no CUDA graphs"
    parts = [
        costs.record.cell.backend,
        profiles.get(str(options.get("profiles", "")), ""),
        "one context per profile" if options.get("contexts") == "per_profile" else "",
        "one engine per shape" if options.get("engines") == "per_shape" else "",
        "padded to larger shapes" if "pad_to" in options else "",
        "token counts rounded up" if "pad_to_multiple_of" in options else "",
        "CUDA graphs" if costs.cuda_graph else plain,
    ]
    return ", ".join(part for part in parts if part)


def _figure(costs: Sequence[Costs], title: str) -> Any:
    from matplotlib.figure import Figure

    lines = _lines(costs)
    steep, flat = [line for line in lines if line.steep], [line for line in lines if not line.steep]
    figure = Figure(figsize=(10, 6.4 if steep and flat else 5))
    lower = figure.add_axes((0.075, 0.09, 0.54, 0.54) if steep and flat else (0.075, 0.12, 0.54, 0.76))
    upper = figure.add_axes((0.075, 0.7, 0.54, 0.19)) if steep and flat else None
    figure.text(0.012, 0.965, title, fontsize=12, fontweight="bold", va="center")
    everything = len(drawable(costs))
    drawn = f"{len(lines)} of {everything} strategies" if len(lines) < everything else "All strategies"
    note = f"{drawn}. Lines: predicted. Markers: replayed requests."
    figure.text(0.012, 0.925, note, fontsize=9, va="center", color="#444444")
    _draw(lower, lines, _range(flat) if flat else None)
    lower.set_xlabel("share of requests that change the shape")
    lower.set_ylabel("ms per request")
    _label(lower, flat or lines)
    if upper is not None:
        _draw(upper, lines, None)
        upper.tick_params(labelbottom=False)
        upper.set_ylabel("ms, log scale")
        _label(upper, steep)
    return figure


def _range(lines: Sequence[Line]) -> tuple[float, float]:
    """Return the limits of a linear scale that shows all lines that are not steep."""
    values = [line.milliseconds(share) for line in lines for share in (0, 1)]
    margin = 0.08 * (max(values) - min(values) or max(values))
    return min(values) - margin, max(values) + margin


def _draw(axes: Any, lines: Sequence[Line], limits: tuple[float, float] | None) -> None:
    """Draw all lines. Without limits the scale is logarithmic."""
    shares = np.unique(np.concatenate([np.linspace(0, 1, 101), np.geomspace(1e-4, 0.1, 40)]))
    for line in lines:
        axes.plot(shares, [line.milliseconds(share) for share in shares], linewidth=2, **line.style)
        times = [mean / 1e6 for mean in line.costs.replays.values()]
        axes.plot(list(line.costs.replays), times, line.marker, color=line.style["color"], markersize=5)
    if limits is None:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(*limits)
    axes.set_xlim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Any, lines: Sequence[Line]) -> None:
    """Write the label of each line at its right end, with a thin line from the end to the label."""
    points = [axes.transData.transform((1, line.milliseconds(1)))[1] for line in lines]
    low, high = (axes.transAxes.transform((0, end))[1] for end in (0, 1))
    texts = [textwrap.fill(line.label, LABEL_WIDTH) for line in lines]
    places = spread_out(points, 13 * max(text.count("\n") + 1 for text in texts), low, high)
    for line, text, place in zip(lines, texts, places, strict=True):
        color = {"color": line.style["color"]}
        height = axes.transAxes.inverted().transform((0, place))[1]
        axes.annotate(
            text,
            (1, line.milliseconds(1)),
            (1.07, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": line.style["color"],
                "shrinkA": 2,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )
        axes.plot([1.05], [height], line.marker, **color, transform=axes.transAxes, clip_on=False)
