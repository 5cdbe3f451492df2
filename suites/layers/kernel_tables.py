"""What kernels one step runs, as Nsight Compute counted them, to markdown.

A profile is the CSV that `backends/tensorrt_/profile_step.py` says how to get, without the lines around it, kept as
`<machine>/kernels/<record>-<batch>x<sequence>.csv` in the results folder with the latency record of the same engine.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.distinctions import distinctions
from suites.tables.markdown import markdown, one_machine, profiles_of
from suites.tables.models import model_names
from suites.text import without_html

GROUPS = {
    "fused attention": r"^mha|fmha|fused_multihead|flash",
    "matrix products": r"gemm|xmma|cutlass|nvjet",
    "softmax": r"ExpSum|softmax",
    "GELU": r"Erf|gelu|NativePointwise",
    "additions and norms": r"Mea|Sqr|[Ll]ayer_?[Nn]orm|skipln",
    "copies and the rest": r"",
}
"""Kernels by the first pattern that is in their name. Myelin names its own after their operations, as CasErfCasAdd; the
only pointwise layers of an engine of plugins are those of GELU."""

COLUMNS = ("backend", "precision", "profiles", "options", "lengths", "batch", "seq", "kernels", "sum ms", *GROUPS)

LEGEND = """\
One forward pass, kernel by kernel, as Nsight Compute timed them: milliseconds and, in brackets, how many. Under the
profiler kernels run one by one at the base clock, so that their sum is longer than the step in the latency table; what
counts is how it is divided."""

Step = tuple[Record, str, list[tuple[str, float]]]
"""A record, a shape, and the kernels of a step with their nanoseconds."""

NANOSECONDS = {"ns": 1.0, "us": 1e3, "ms": 1e6}


def kernel_tables(folder: MachineFolder) -> str:
    """All profiles of one machine in markdown, one table a model; empty without any.

    Raises:
        ValueError: a profile is no such CSV file, or its record is not there.
    """
    steps: dict[tuple[str, str], list[Step]] = {}
    for path in sorted(folder.kernels.glob("*.csv")):
        stem, _, shape = path.stem.rpartition("-")
        record = folder.record("latency", stem)
        if record is None:
            raise ValueError(f"{path}: the latency record {stem} is not there")
        model = record.cell.model, record.cell.model_version
        steps.setdefault(model, []).append((record, shape, read_kernels(path)))
    if not steps:
        return ""
    records = [record for taken in steps.values() for record, *_ in taken]
    names, lines = model_names(records), ["# Kernels", "", LEGEND, "", one_machine(records)]
    for taken in steps.values():
        told = distinctions([record for record, *_ in taken])
        rows = [_row(told.of(step[0]), *step) for step in taken]
        lines += ["", f"### {names(taken[0][0])}", *told.caption(), "", markdown(COLUMNS, rows)]
    return without_html("\n".join(lines) + "\n")


def read_kernels(path: Path) -> list[tuple[str, float]]:
    """Name and nanoseconds of each kernel, in the order they ran.

    Raises:
        ValueError: a row is not one of gpu__time_duration.sum.
    """
    with path.open(encoding="utf-8", newline="") as stream:
        try:
            return [
                (row["Kernel Name"], float(row["Metric Value"].replace(",", "")) * NANOSECONDS[row["Metric Unit"]])
                for row in csv.DictReader(stream)
            ]
        except (KeyError, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no CSV of kernel times by Nsight Compute: {error!r}") from None


def _row(options: str, record: Record, shape: str, kernels: list[tuple[str, float]]) -> tuple[str, ...]:
    count: Counter[str] = Counter()
    spent = dict.fromkeys(GROUPS, 0.0)
    for name, nanoseconds in kernels:
        group = next(group for group, pattern in GROUPS.items() if re.search(pattern, name))
        count[group] += 1
        spent[group] += nanoseconds
    groups = [f"{spent[group] / 1e6:.2f} ({count[group]})" if count[group] else "" for group in GROUPS]
    cell, (batch, sequence) = record.cell, shape.split("x")
    lengths = str(cell.lengths["distribution"]).replace("full", "")
    head = (cell.backend, cell.precision, profiles_of(record), options, lengths, batch, sequence)
    return (*head, str(len(kernels)), f"{sum(spent.values()) / 1e6:.2f}", *groups)
