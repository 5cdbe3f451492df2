"""The short table at the end of a run of suite=kernels: classes as rows, and the cells of the folder side by side."""

from __future__ import annotations

from itertools import groupby

from suites.kernels.classes import CLASSES, IDLE, times_by_class
from suites.kernels.result import KernelsResult
from suites.kernels.tables import TOLERANCE, comparisons, sum_note
from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.end_table import (
    EXCLUDED,
    OWN_REMARK,
    Column,
    EndTable,
    Group,
    Line,
    RunScope,
    heading,
    short_options,
)
from suites.tables.markdown import configuration, digits, machine_title
from suites.tables.models import model_names

SHORT = ("prod.", "attn.", "norms", "act.", "ref.", "other", IDLE)
"""Headings of the classes."""

COLUMNS = (Column(""), Column("backend", shrinks=1), Column("step", right=True),
           *(Column(name, right=True) for name in SHORT), Column("sum", right=True))  # fmt: skip


def kernels_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each model and shape of this run, with the cells of the folder."""
    names, common = model_names(scope.records), distinctions(scope.records)

    def place(record: Record) -> tuple[str, str, str]:
        return names(record), record.cell.weights, "x".join(map(str, record.cell.shapes[-1]))

    tables = []
    for (model, weights, shape), members in groupby(sorted(scope.records, key=place), key=place):
        records = sorted(members, key=lambda record: record.cell.id)
        if any(map(scope.mark, records)):
            lines = [
                _line(record, scope, short_options(configuration(record, common.of(record)))) for record in records
            ]
            title = heading(model, f"{weights} weights, {shape}; ms by class of kernel")
            remarks = (
                OWN_REMARK,
                f"sum: all classes, as a share of the step; !: more than {TOLERANCE:.0%} from the step; the causes are "
                "in docs/guides/kernels.md",
                *comparisons(records),
            )
            tables.append(EndTable([machine_title(records[0]), *title], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(record: Record, scope: RunScope, options: str) -> Line:
    named = (scope.mark(record), " ".join((record.cell.backend, record.cell.precision, options)).strip())
    result = record.result
    if record.outcome != OK or not isinstance(result, KernelsResult):
        return Line([*named, *[""] * (len(COLUMNS) - 2)], f"{record.outcome}: {record.reason}", EXCLUDED)
    spent = [time for time, _ in times_by_class(result.step.kernels).values()]
    assert len(SHORT) == len(CLASSES) + 1
    figures = [digits(time / 1e6) if time else "" for time in (result.step_ns, *spent, result.idle_ns)]
    return Line([*named, *figures, f"{1 + result.excess:.0%}{'!' if sum_note(result) else ''}"])
