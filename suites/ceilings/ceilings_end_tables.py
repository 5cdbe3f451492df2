"""The short table at the end of a run of suite=ceilings: the figure of each operation of this run."""

from __future__ import annotations

from suites.ceilings.result import Ceiling, CeilingsResult
from suites.ceilings.tables import size_text
from suites.records.record import OK
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import digits, machine_title

COLUMNS = (Column("operation"), Column("precision"), Column("size", right=True), Column("figure", right=True),
           Column("unit"), Column("notes"))  # fmt: skip


def ceilings_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result = record.result
        if record.outcome != OK or not isinstance(result, CeilingsResult):
            lines = [Line(["all", "", "", "", "", ""], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(ceiling) for ceiling in result.ceilings]
            lines += [
                Line([left.name, left.precision, "", "", "", ""], f"left out: {left.reason}", EXCLUDED)
                for left in result.left_out
            ]
        title = heading("ceilings", record.cell.release)
        tables.append(EndTable([machine_title(record), *title], COLUMNS, [Group("", lines)]))
    return tables


def _line(ceiling: Ceiling) -> Line:
    operation = ceiling.operation
    figure, note = digits(ceiling.figure), "" if ceiling.steady else "not steady"
    return Line([operation.name, operation.precision, size_text(operation), figure, operation.unit, note])
