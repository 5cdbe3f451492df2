"""The short table at the end of a run of suite=alignment: padding to each multiple, and the advice."""

from __future__ import annotations

from suites.alignment.alignment_advice import sentences
from suites.alignment.result import AlignmentResult
from suites.alignment.tables import policy_rows
from suites.records.record import OK
from suites.tables.end_table import EXCLUDED, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import machine_title

COLUMNS = (Column("sizes", shrinks=1), Column("padded to", right=True), Column("mean ms", right=True),
           Column("change", right=True), Column("notes"))  # fmt: skip


def alignment_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, remarks, cell = record.result, list[str](), record.cell
        if record.outcome != OK or not isinstance(result, AlignmentResult):
            groups = [Group("", [Line(["all", "", "", "", ""], f"{record.outcome}: {record.reason}", EXCLUDED)])]
        else:
            groups = [Group("", [Line([*row[:4], ""]) for row in policy_rows(result)])]
            remarks = list(sentences(result))
        titles = heading("alignment", f"{cell.model}, {cell.backend} {cell.precision}, {cell.release}")
        tables.append(EndTable([machine_title(record), *titles], COLUMNS, groups, remarks))
    return tables
