"""The short table at the end of a run of suite=serving: latency and batches of each load."""

from __future__ import annotations

from suites.records.record import OK, Record
from suites.serving.other_processes import disturbance
from suites.serving.result import SEARCH, LoadPoint, ServingResult
from suites.serving.tables import load_text, milliseconds, notes_of, sentences, title
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import digits, joined, machine_title

COLUMNS = (Column("load"), Column("requests/s", right=True), Column("p50 ms", right=True),
           Column("p99 ms", right=True), Column("batch", right=True), Column("rejected", right=True),
           Column("notes", shrinks=1))  # fmt: skip


def serving_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run. Loads of a search are in the file only."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks = record.result, list[str]()
        if record.outcome != OK or not isinstance(result, ServingResult):
            lines = [Line(["all", *[""] * 6], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(point, record) for point in result.points if point.purpose != SEARCH]
            remarks = [*(sentences(result) if result.highest else []), *disturbance(result)]
        titles = heading("serving", title(record))
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(point: LoadPoint, record: Record) -> Line:
    rate = digits(point.achieved) if point.answered else "0"
    batch = digits(point.mean_batch) if point.answered else ""
    rejected = f"{point.rejected:,}" if point.rejected else ""
    cells = [load_text(point), rate, milliseconds(point, "p50"), milliseconds(point, "p99"), batch, rejected]
    notes = joined(*notes_of(point, record))
    return Line([*cells, ""], f"note: {notes}" if notes else "")
