"""Kernel times of one step by Nsight Compute, to markdown.

`backends/tensorrt_/profile_step.py` explains how to make the CSV file of a profile. Remove the lines around the CSV,
and save the file as `<machine>/kernels/<record>-<batch>x<sequence>.csv` in the results folder. The folder must have the
latency record of the same engine.
"""

from __future__ import annotations

from pathlib import Path

from backends.base import Shape
from backends.kernel_times import KernelTime
from suites.kernels.classes import CLASSES, times_by_class
from suites.kernels.profiler_tools import ncu_kernels
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.distinctions import distinctions
from suites.tables.markdown import NOTES_LEGEND, ROW_LEGEND, configuration, document, fitted, one_machine
from suites.tables.models import model_names

COLUMNS = ("backend", "precision", "lengths", "batch", "seq", "kernels", "sum ms", *CLASSES, "notes")

KEYS = COLUMNS.index("sum ms") + 1

LEGEND = f"""\
Kernel times of one forward pass, from Nsight Compute.

- **kernels, sum ms**: number of kernels and the sum of their times. Under the profiler, kernels run one by one at the
  base clock. Therefore the sum is larger than the time in the latency table; compare the shares of the classes.
- **classes of kernels**: milliseconds of the class, and the number of its kernels in brackets. "Kernels by class" has
  the classes; in profiles of kernel names, unfused products of attention count as products.
{ROW_LEGEND}
{NOTES_LEGEND}"""

Step = tuple[Record, str, list[KernelTime]]
"""A record, a shape, and the kernels of a step."""


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


def read_kernels(path: Path) -> list[KernelTime]:
    """Return the kernels of a profile, in the order of execution.

    Raises:
        ValueError: a row has no metric gpu__time_duration.sum.
    """
    try:
        return ncu_kernels(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a CSV file of kernel times by Nsight Compute: {error}") from None


def _row(options: str, record: Record, shape: str, kernels: list[KernelTime]) -> tuple[str, ...]:
    times = times_by_class(kernels)
    groups = [f"{spent / 1e6:.2f} ({count})" if count else "" for spent, count in times.values()]
    cell, run_shape = record.cell, Shape.parse(shape)
    lengths = str(cell.lengths["distribution"]).replace("full", "")
    head = (cell.backend, cell.precision, lengths, str(run_shape.batch), str(run_shape.sequence))
    notes = configuration(record, options)
    return (*head, str(len(kernels)), f"{sum(spent for spent, _ in times.values()) / 1e6:.2f}", *groups, notes)
