"""Plots of suite=alignment: time of a token by size, one file for each model and sweep."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from suites.alignment.alignment_advice import place
from suites.alignment.result import SEQUENCE, AlignmentResult, Sweep
from suites.records.record import OK, Record
from suites.records.results_folder import MachineFolder
from suites.tables.models import model_names
from suites.tables.series_plot import Panel, Series, row_labels, write_series_plot
from suites.tables.series_styles import MOST_SERIES

TICKS = 8
"""Sizes with a label are multiples of this number."""


@dataclass(frozen=True)
class Row:
    """A sweep of a record."""

    record: Record
    result: AlignmentResult
    sweep: Sweep


def write_alignment_plots(folder: MachineFolder) -> list[Path]:
    """Write a plot for each model and sweep; return the files. A plot has at most `MOST_SERIES` rows, the fastest."""
    records, written = [record for record in folder.records("alignment") if record.outcome == OK], []
    names = model_names(records)
    groups: dict[tuple[str, str], list[Row]] = {}
    for record in records:
        if isinstance(record.result, AlignmentResult):
            for sweep in record.result.sweeps:
                groups.setdefault((names(record), place(sweep)), []).append(Row(record, record.result, sweep))
    for (model, sizes), rows in groups.items():
        path = folder.plots / f"{re.sub(r'[^a-z0-9_.-]+', '-', f'alignment-{model}-{sizes}'.lower())}.svg"
        write_series_plot([_panel(rows)], path, f"{folder.name}, {model}: {sizes}")
        written.append(path)
    return sorted(written)


def relative_times(result: AlignmentResult, sweep: Sweep) -> dict[int, float]:
    """Return the time of a token at each size, divided by the smallest one of the sweep."""
    times = {size: result.milliseconds(sweep, size) for size in sweep.targets()}
    each = {size: time / size for size, time in times.items() if time is not None}
    return {size: time / min(each.values()) for size, time in each.items()}


def _panel(rows: list[Row]) -> Panel:
    shown = sorted(rows, key=lambda row: min(shape.milliseconds for shape in row.result.measured(row.sweep)))
    labels = row_labels([row.record for row in shown[:MOST_SERIES]])
    series = [
        Series(label, relative_times(row.result, row.sweep), number)
        for number, (label, row) in enumerate(zip(labels, shown, strict=False))
    ]
    of_sequences = rows[0].sweep.axis == SEQUENCE
    label, noun = ("sequence length", "token") if of_sequences else ("batch size", "sequence")
    ticks = sorted({size for one in series for size in one.points if size % TICKS == 0})
    return Panel(label, f"time of a {noun}, smallest = 1", series, ticks)
