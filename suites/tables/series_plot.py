"""Plots of figures by size, as SVG files: panels with at most eight series each."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from suites.records.record import Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import configuration
from suites.tables.series_styles import COLORS, MARKERS, MOST_SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TITLE_WIDTH = 64
"""Characters of a line of the title, for each panel."""


@dataclass(frozen=True)
class Series:
    """A line of a panel.

    Attributes:
        points: figure by size.
        dashed: whether the line is dashed, to distinguish two lines of one colour.
        number: number of the colour and marker, from 0.
    """

    label: str
    points: Mapping[int, float]
    number: int
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Axes of a plot.

    Attributes:
        ticks: sizes that have a label and a vertical line.
        by_doubling: whether equal distances are equal factors of the size.
        percent: whether figures are shares from 0 to 1.
    """

    x_label: str
    y_label: str
    series: Sequence[Series]
    ticks: Sequence[int]
    by_doubling: bool = False
    percent: bool = False


def row_labels(records: Sequence[Record]) -> list[str]:
    """Return the backend and precision of each record, with the options that distinguish it from others of both."""
    names = [f"{record.cell.backend} {record.cell.precision}" for record in records]
    counts, common = Counter(names), distinctions(records)
    return [
        name if counts[name] == 1 else f"{name}, {configuration(record, common.of(record))}".removesuffix(", ")
        for name, record in zip(names, records, strict=True)
    ]


def write_svg(path: Path, title: str, draw: Callable[[], Figure]) -> None:
    """Write a figure. The same figure gives the same bytes each time, and text stays text.

    Args:
        path: the file; its folder is created.
    """
    import matplotlib

    matplotlib.use("Agg")
    # Without the salt, the same figure gives different bytes each time. Text stays text, so fonts have no influence.
    settings = {"svg.hashsalt": "suites", "svg.fonttype": "none", "font.size": 10, "font.family": "sans-serif"}
    with matplotlib.rc_context(settings):
        figure = draw()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Title": title})


def write_series_plot(panels: Sequence[Panel], path: Path, title: str) -> None:
    """Write one SVG file with these panels next to each other."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.5 * len(panels), 4.6), layout="constrained")
        figure.suptitle(textwrap.fill(title, TITLE_WIDTH * len(panels)), fontsize=11, fontweight="bold")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
        return figure

    write_svg(path, title, draw)


def _draw(axes: Axes, panel: Panel) -> None:
    if panel.by_doubling:
        axes.set_xscale("log", base=2)
    for series in panel.series:
        xs = sorted(series.points)
        (line,) = axes.plot(xs, [series.points[x] for x in xs], label=series.label, linewidth=1.8, markersize=4)
        line.set_linestyle("--" if series.dashed else "-")
        line.set_color(COLORS[series.number % MOST_SERIES])
        line.set_marker(MARKERS[series.number % MOST_SERIES])
    axes.set_xticks(list(panel.ticks), labels=[str(tick) for tick in panel.ticks])
    axes.minorticks_off()
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)
    axes.grid(alpha=0.3)
    if panel.percent:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
