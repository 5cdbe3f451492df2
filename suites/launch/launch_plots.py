"""Plots of suite=launch: waiting of the GPU and share of Python by batch, for each model and sequence length."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from suites.launch.result import LaunchResult, LaunchTimes
from suites.records.record import OK, Record
from suites.records.results_folder import MachineFolder
from suites.tables.models import model_names
from suites.tables.series_plot import Panel, Series, row_labels, write_series_plot
from suites.tables.series_styles import MOST_SERIES


@dataclass(frozen=True)
class Row:
    """A record, its times, and the number of its colour."""

    record: Record
    result: LaunchResult
    number: int


def write_launch_plots(folder: MachineFolder) -> list[Path]:
    """Write a plot for each model and sequence length with figures; return the files."""
    records, written = [record for record in folder.records("launch") if record.outcome == OK], []
    names = model_names(records)
    groups: dict[tuple[str, int], list[Row]] = {}
    for record in sorted(records, key=lambda record: record.cell.id):
        if isinstance(record.result, LaunchResult):
            for sequence in record.result.sequences:
                rows = groups.setdefault((names(record), sequence), [])
                rows.append(Row(record, record.result, len(rows)))
    for (model, sequence), rows in groups.items():
        panels = panels_of(rows[:MOST_SERIES], sequence)
        if panels:
            name = re.sub(r"[^a-z0-9_.-]+", "-", f"launch-{model}-sequence-length-{sequence}".lower())
            written.append(folder.plots / f"{name}.svg")
            write_series_plot(panels, written[-1], f"{folder.name}, {model}: sequence length {sequence}")
    return sorted(written)


def panels_of(rows: Sequence[Row], sequence: int) -> list[Panel]:
    """Return the panels that have a figure. Lines with a CUDA graph are dashed."""
    figures: list[tuple[str, Callable[[LaunchTimes], float | None]]] = [
        ("share of time for which the GPU waits for the host", lambda times: times.waiting_share),
        ("share of Python in the host time of a step", lambda times: times.python_share),
    ]
    panels, names = [], row_labels([row.record for row in rows])
    for label, figure in figures:
        series = [
            Series(f"{name}, CUDA graph" if graph else name, points, row.number, dashed=graph)
            for name, row in zip(names, rows, strict=True)
            for graph in (False, True)
            if (points := _points(row.result, sequence, graph, figure))
        ]
        if series:
            ticks = sorted({batch for one in series for batch in one.points})
            panels.append(Panel("batch size", label, series, ticks, by_doubling=True, percent=True))
    return panels


def _points(
    result: LaunchResult, sequence: int, graph: bool, figure: Callable[[LaunchTimes], float | None]
) -> dict[int, float]:
    found = [times for times in result.times if (times.sequence, times.cuda_graph) == (sequence, graph)]
    return {times.batch: share for times in found if (share := figure(times)) is not None}
