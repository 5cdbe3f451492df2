"""Plots of latency and batch size against the load, one line for each strategy, as SVG files."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.serving.load_curves import Curve, curves_by_workload, first_of_each_backend
from suites.tables.series_plot import write_svg
from suites.tables.series_styles import COLORS, DASHES, MARKERS, MOST_SERIES
from suites.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH = 44
"""Longest line of a label in characters."""


def write_load_plots(folder: MachineFolder) -> list[Path]:
    """Write a plot for each workload of a machine with curves; return the files.

    The name has a number if a model has several workloads. A record that gives no curve because its content is wrong is
    added to the list of bad files.
    """
    written: list[Path] = []
    numbers: Counter[str] = Counter()
    for curves in curves_by_workload(_usable(folder)):
        record = curves[0].record
        name = re.sub(r"[^a-z0-9_.-]+", "-", record.cell.model.lower())
        numbers[name] += 1
        suffix = f"-{numbers[name]}" if numbers[name] > 1 else ""
        written.append(folder.plots / f"serving-{name}{suffix}.svg")
        plot_loads(curves, written[-1], f"{record.environment.machine}, {record.cell.model}")
    return written


def _usable(folder: MachineFolder) -> Sequence[Record]:
    for record in folder.records("serving"):
        try:
            curves_by_workload([record])
        except Exception as error:
            folder.leave_out(record, one_line(f"its loads cannot be read: {type(error).__name__}: {error}", 200))
    return folder.records("serving")


def plot_loads(curves: Sequence[Curve], path: Path, title: str) -> None:
    """Write the plot of the curves of one workload.

    Args:
        curves: of at most MOST_SERIES of them, lines are drawn: first the one of the highest load of each backend.
        path: the file; its folder is created.
    """
    write_svg(path, title, lambda: _figure(curves, title))


def _figure(curves: Sequence[Curve], title: str) -> Figure:
    from matplotlib.figure import Figure

    drawn = first_of_each_backend(curves, MOST_SERIES)
    figure = Figure(figsize=(10, 7))
    upper, lower = figure.add_axes((0.075, 0.5, 0.5, 0.38)), figure.add_axes((0.075, 0.09, 0.5, 0.33))
    figure.text(0.012, 0.965, title, fontsize=12, fontweight="bold", va="center")
    count = f"{len(drawn)} of {len(curves)} strategies" if len(drawn) < len(curves) else "All strategies"
    note = f"{count}. Loads that the server keeps up with."
    figure.text(0.012, 0.925, note, fontsize=9, va="center", color="#444444")
    for number, curve in enumerate(drawn):
        timed = [(point.load, point.p99_ms) for point in curve.points if point.p99_ms is not None]
        sizes = [(point.load, point.batch) for point in curve.points]
        for axes, pairs in ((upper, timed), (lower, sizes)):
            axes.plot(
                [x for x, _ in pairs],
                [y for _, y in pairs],
                label=textwrap.fill(curve.label, LABEL_WIDTH),
                color=COLORS[number % len(COLORS)],
                marker=MARKERS[number % len(MARKERS)],
                linestyle=DASHES[number % len(DASHES)],
            )
    _finish(upper, "p99 of latency, ms")
    _finish(lower, "mean requests of a batch")
    lower.set_xlabel("load, requests/s")
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.59, 0.89), frameon=False, fontsize=9)
    return figure


def _finish(axes: Axes, title: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(title)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
