"""The short table at the end of a run of suite=layers: one row for each cell, the smallest error first."""

from __future__ import annotations

from itertools import groupby

from suites.layers.result import LayersResult
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
from suites.tables.markdown import configuration, machine_title
from suites.tables.models import model_names

COLUMNS = (
    Column(""), Column("backend", shrinks=2), Column("options", shrinks=1), Column("largest error", right=True),
    Column("first above threshold", shrinks=3),
)  # fmt: skip

REMARKS = (OWN_REMARK, "largest error: largest relative error of a marked output against FP32")


def layers_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each model of this run, with the cells of the folder."""
    names, common = model_names(scope.records), distinctions(scope.records)

    def model_of(record: Record) -> tuple[str, str]:
        return names(record), record.cell.weights

    tables = []
    for (model, weights), members in groupby(sorted(scope.records, key=model_of), key=model_of):
        records = sorted(members, key=lambda record: (_largest_error(record), record.cell.id))
        if any(map(scope.mark, records)):
            lines = [
                _line(record, scope, short_options(configuration(record, common.of(record)))) for record in records
            ]
            title = heading(model, f"{weights} weights")
            tables.append(EndTable([machine_title(records[0]), *title], COLUMNS, [Group("", lines)], REMARKS))
    return tables


def _largest_error(record: Record) -> float:
    """Return the largest relative error; infinite if an output is not finite or the cell did not end well."""
    result = record.result
    layers = result.layers if record.outcome == OK and isinstance(result, LayersResult) else ()
    errors = [float("inf") if layer.errors is None else layer.errors.relative_error for layer in layers]
    return max(errors, default=float("inf"))


def _line(record: Record, scope: RunScope, options: str) -> Line:
    named = (scope.mark(record), f"{record.cell.backend} {record.cell.precision}", options)
    result, error = record.result, _largest_error(record)
    if record.outcome != OK or not isinstance(result, LayersResult):
        return Line([*named, "", ""], f"{record.outcome}: {record.reason}", EXCLUDED)
    first = result.first or ("" if result.threshold is None else f"none above {result.threshold:g}")
    return Line([*named, "NaN or Inf" if error == float("inf") else f"{error:.2e}", first])
