"""The short table at the end of a run of suite=launch: a row for each shape of this run, and the advice."""

from __future__ import annotations

from suites.launch.launch_advice import sentences
from suites.launch.result import LaunchResult
from suites.launch.tables import rows_of
from suites.records.record import OK
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import inline, machine_title

COLUMNS = (Column("batch", right=True), Column("seq", right=True), Column("graph"), Column("enqueue ms", right=True),
           Column("Python", right=True), Column("step ms", right=True), Column("GPU ms", right=True),
           Column("GPU waits", right=True), Column("notes"))  # fmt: skip


def launch_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks, cell = record.result, list[str](), record.cell
        if record.outcome != OK or not isinstance(result, LaunchResult):
            lines = [Line(["all", *[""] * (len(COLUMNS) - 1)], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(row) for row in rows_of(record, result)]
            remarks = list(sentences(result))
        titles = heading("launch", f"{cell.model}, {cell.backend} {cell.precision}, {cell.release}")
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(row: list[str]) -> Line:
    batch, sequence, graph, enqueue, share, _, step, busy, waiting, notes = row
    return Line([batch, sequence, graph, enqueue, share, step, busy, waiting, inline(notes)])
