"""The short table at the end of a run of suite=tritonserver: latency and batches of each load and path."""

from __future__ import annotations

from suites.records.record import OK, Record
from suites.serving.tables import load_text, milliseconds, notes_of, title
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import digits, joined, machine_title
from suites.tritonserver.result import Curve, TritonResult
from suites.tritonserver.tables import PATHS, ordered, sentences

COLUMNS = (Column("load"), Column("path"), Column("requests/s", right=True), Column("p50 ms", right=True),
           Column("p99 ms", right=True), Column("batch", right=True), Column("rejected", right=True),
           Column("notes", shrinks=1))  # fmt: skip


def triton_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks = record.result, list[str]()
        if record.outcome != OK or not isinstance(result, TritonResult):
            lines = [Line(["all", *[""] * 7], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines, remarks = [_line(curve, number, record) for curve, number in ordered(result)], sentences(result)
        titles = heading("tritonserver", title(record))
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], remarks))
    return tables


def _line(curve: Curve, number: int, record: Record) -> Line:
    point = curve.points[number]
    rate = digits(point.achieved) if point.answered else "0"
    batch = digits(point.mean_batch) if point.batches else ""
    rejected = f"{point.rejected:,}" if point.rejected else ""
    times = [milliseconds(point, "p50"), milliseconds(point, "p99")]
    notes = joined(*notes_of(point, record))
    cells = [load_text(point), PATHS[curve.path], rate, *times, batch, rejected]
    return Line([*cells, ""], f"note: {notes}" if notes else "")
