"""The short table at the end of a run of suite=building: the cost of each build of this run."""

from __future__ import annotations

from suites.building.advice import sentences
from suites.building.result import BuildingResult
from suites.building.tables import EXAMPLE, rows_of
from suites.records.record import OK
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import NOTE, inline, machine_title

COLUMNS = (Column("build", shrinks=1), Column("build s", right=True), Column("file MB", right=True),
           Column("p50 ms", right=True), Column("output"), Column("notes"))  # fmt: skip


def building_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks = record.result, []
        if record.outcome != OK or not isinstance(result, BuildingResult):
            lines = [Line(["all", *[""] * 5], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(row) for row in rows_of(result)]
            remarks = list(sentences(result))
        cell = record.cell
        titles = heading("building", f"{cell.model}, {cell.backend} {cell.precision}, {cell.release}")
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(row: list[str]) -> Line:
    name, _, _, seconds, size, time, _, _, output, _, notes = row
    if not time:
        return Line([name, *[""] * 5], inline(notes), EXCLUDED)
    short = [note for note in notes.split(NOTE) if not note.startswith(EXAMPLE)]
    return Line([name, seconds, size, time, output, "; ".join(short)])
