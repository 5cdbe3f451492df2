"""The short table at the end of a run of suite=limits: a row for each shape and share of this run, and the advice."""

from __future__ import annotations

from suites.limits.limits_advice import sentences
from suites.limits.result import LimitsResult
from suites.limits.tables import rows_of
from suites.records.record import OK
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import inline, machine_title

COLUMNS = (Column("batch", right=True), Column("seq", right=True), Column("share", right=True),
           Column("SMs", right=True), Column("graph"), Column("p50 ms", right=True), Column("p99 ms", right=True),
           Column("seq/s", right=True), Column("notes"))  # fmt: skip


def limits_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks, cell = record.result, list[str](), record.cell
        if record.outcome != OK or not isinstance(result, LimitsResult):
            lines = [Line(["all", *[""] * (len(COLUMNS) - 1)], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(row) for row in rows_of(record, result)]
            remarks = list(sentences(result))
        titles = heading("limits", f"{cell.model}, {cell.backend} {cell.precision}, {cell.release}")
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(row: list[str]) -> Line:
    *cells, _, notes = row
    cells[3] = cells[3].partition(" of ")[0]
    return Line([*cells, inline(notes)])
