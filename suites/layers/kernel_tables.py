"""Kernel times of one step by Nsight Compute, to markdown.

`backends/tensorrt_/profile_step.py` explains how to make the CSV file of a profile. Remove the lines around the CSV,
and save the file as `<machine>/kernels/<record>-<batch>x<sequence>.csv` in the results folder. The folder must have the
latency record of the same engine.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

from backends.base import Shape
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.distinctions import distinctions
from suites.tables.markdown import NOTES_LEGEND, ROW_LEGEND, configuration, document, fitted, one_machine
from suites.tables.models import model_names

GROUPS = {
    "fused attention": r"^mha|fmha|fused_multihead|flash",
    "matrix products": r"gemm|xmma|cutlass|nvjet",
    "softmax": r"ExpSum|softmax",
    "GELU": r"Erf|gelu|NativePointwise",
    "additions and norms": r"Mea|Sqr|[Ll]ayer_?[Nn]orm|skipln",
    "copies and the rest": r"",
}
"""Patterns of kernel names. The first one that matches gives the group of a kernel. Myelin names a kernel after its
operations, e.g. CasErfCasAdd. In an engine of plugins, only GELU has pointwise layers."""

COLUMNS = ("backend", "precision", "lengths", "batch", "seq", "kernels", "sum ms", *GROUPS, "notes")

KEYS = COLUMNS.index("sum ms") + 1

LEGEND = f"""\
Kernel times of one forward pass, from Nsight Compute.

- **kernels, sum ms**: number of kernels and the sum of their times. Under the profiler, kernels run one by one at the
  base clock. Therefore the sum is larger than the time in the latency table; compare the shares of the groups.
- **groups of kernels**: milliseconds of the group, and the number of its kernels in brackets.
{ROW_LEGEND}
{NOTES_LEGEND}"""

Step = tuple[Record, str, list[tuple[str, float]]]
"""A record, a shape, and the kernels of a step with their times in ns."""

NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6}


def kernel_tables(folder: MachineFolder) -> str:
    """Return the profiles of one machine, with one table for each model; empty without profiles.

    Raises:
        ValueError: a profile is not a CSV file of kernel times, or its record is missing.
    """
    steps: dict[tuple[str, str], list[Step]] = {}
    for path in sorted(folder.kernels.glob("*.csv")):
        stem, _, shape = path.stem.rpartition("-")
        record = folder.record("latency", stem)
        if record is None:
            raise ValueError(f"{path}: the latency record {stem} is missing")
        model = record.cell.model, record.cell.model_version
        steps.setdefault(model, []).append((record, shape, read_kernels(path)))
    if not steps:
        return ""
    records = [record for of_model in steps.values() for record, *_ in of_model]
    names, lines = model_names(records), ["", one_machine(records)]
    for of_model in steps.values():
        common = distinctions([record for record, *_ in of_model])
        rows = [_row(common.of(step[0]), *step) for step in of_model]
        lines += ["", f"### {names(of_model[0][0])}", *common.caption(), "", fitted(COLUMNS, rows, KEYS)]
    return document("Kernels", LEGEND, ["\n".join(lines)])


def read_kernels(path: Path) -> list[tuple[str, float]]:
    """Return the name and the time in ns of each kernel, in the order of execution.

    Raises:
        ValueError: a row has no metric gpu__time_duration.sum.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            return [
                (row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * NANOSECONDS[row["Metric Unit"]])
                for row in csv.DictReader(stream)
            ]
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is not a CSV file of kernel times by Nsight Compute: {error!r}") from None


def group_times(kernels: Sequence[tuple[str, float]]) -> dict[str, tuple[float, int]]:
    """Return the time in ns and the number of the kernels of each group in `GROUPS`."""
    times = dict.fromkeys(GROUPS, (0.0, 0))
    for name, nanoseconds in kernels:
        group = next(group for group, pattern in GROUPS.items() if re.search(pattern, name))
        spent, count = times[group]
        times[group] = spent + nanoseconds, count + 1
    return times


def _row(options: str, record: Record, shape: str, kernels: list[tuple[str, float]]) -> tuple[str, ...]:
    times = group_times(kernels)
    groups = [f"{spent / 1e6:.2f} ({count})" if count else "" for spent, count in times.values()]
    cell, run_shape = record.cell, Shape.parse(shape)
    lengths = str(cell.lengths["distribution"]).replace("full", "")
    head = (cell.backend, cell.precision, lengths, str(run_shape.batch), str(run_shape.sequence))
    notes = configuration(record, options)
    return (*head, str(len(kernels)), f"{sum(spent for spent, _ in times.values()) / 1e6:.2f}", *groups, notes)
