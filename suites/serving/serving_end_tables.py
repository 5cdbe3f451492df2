"""The short tables at the end of a run of suite=serving: each load of a cell, and the highest loads of all cells."""

from __future__ import annotations

from suites.records.record import OK, Record
from suites.serving.load_summary import Configuration, Summary, summaries
from suites.serving.other_processes import disturbance, disturbed_loads
from suites.serving.result import SEARCH, LoadPoint, ServingResult
from suites.serving.summary_tables import answers, bound_text, packed_or_padded
from suites.serving.tables import load_text, milliseconds, notes_of, sentences, title
from suites.tables.end_table import (
    EXCLUDED,
    OWN_REMARK,
    WINNER,
    Column,
    EndTable,
    Group,
    Line,
    RunScope,
    heading,
    selected,
)
from suites.tables.markdown import digits, joined, machine_title
from suites.tables.models import output_text

COLUMNS = (Column("load"), Column("requests/s", right=True), Column("p50 ms", right=True),
           Column("p99 ms", right=True), Column("batch", right=True), Column("rejected", right=True),
           Column("notes", shrinks=1))  # fmt: skip

SATURATED_REMARK = "saturated: highest throughput in requests/s; at N ms: highest load within this bound"


def serving_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run, and a summary if at least two of them can be compared.

    Loads of a search are in the file only.
    """
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
    return [*tables, *_summaries(scope)]


def _summaries(scope: RunScope) -> list[EndTable]:
    """Return the summaries of at least two cells of this run, with other records of the folder to compare."""
    found = summaries(scope.records)
    return [
        _summary_table(summary, scope)
        for summary in found
        if sum(bool(scope.mark(row.record)) for row in summary.configurations) > 1
    ]


def _summary_table(summary: Summary, scope: RunScope) -> EndTable:
    rows, first = summary.configurations, summary.configurations[0].record
    shown = selected([scope.always_shown(row.record) for row in rows])
    lines = [_summary_line(rows[index], summary, scope) for index in shown]
    columns = (Column(""), Column("backend", shrinks=2), Column("strategy", shrinks=1), Column("saturated", right=True),
               *(Column(f"at {bound_text(bound)}", right=True) for bound in summary.bounds))  # fmt: skip
    texts = [text.replace("**", "") for text in (*answers(summary), *packed_or_padded(summary))]
    disturbed = sum(bool(disturbed_loads(row.result)) for row in rows)
    warning = f"Other processes took CPU time during loads of {disturbed} of {len(rows)} rows; serving.md names them."
    titles = heading("serving, all configurations", f"{first.cell.model}{output_text(first.cell)}")
    remarks = [OWN_REMARK, SATURATED_REMARK, *texts, *([warning] if disturbed else [])]
    return EndTable([machine_title(first), *titles], columns, [Group("", lines, len(rows) - len(lines))], remarks)


def _summary_line(row: Configuration, summary: Summary, scope: RunScope) -> Line:
    loads = [digits(load) if (load := row.load(b)) else "none" if row.highest(b) else "" for b in summary.bounds]
    saturated = digits(row.saturated) if row.saturated else ""
    best = bool(summary.bounds) and row in summary.best(summary.bounds[0])
    cells = [scope.mark(row.record), row.name, row.strategy, saturated, *loads]
    return Line(cells, style=WINNER if best else "")


def _line(point: LoadPoint, record: Record) -> Line:
    rate = digits(point.achieved) if point.answered else "0"
    batch = digits(point.mean_batch) if point.answered else ""
    rejected = f"{point.rejected:,}" if point.rejected else ""
    cells = [load_text(point), rate, milliseconds(point, "p50"), milliseconds(point, "p99"), batch, rejected]
    notes = joined(*notes_of(point, record))
    return Line([*cells, ""], f"note: {notes}" if notes else "")
