"""The short tables at the end of a run of suite=limits: rows for each shape and share of this run, and the advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from suites.limits.engine_tables import pair_rows
from suites.limits.limits_advice import sentences
from suites.limits.result import LimitsResult
from suites.limits.sharing_tables import sharing_rows
from suites.limits.tables import client_rows, rows_of
from suites.records.record import OK, OUTCOMES
from suites.tables.end_table import EXCLUDED, NOTE, Column, EndTable, Group, Line, RunScope, heading
from suites.tables.markdown import inline, machine_title

COLUMNS = (Column("batch", right=True), Column("seq", right=True), Column("share", right=True),
           Column("SMs", right=True), Column("graph"), Column("p50 ms", right=True), Column("p99 ms", right=True),
           Column("seq/s", right=True), Column("notes"))  # fmt: skip

ENGINE_COLUMNS = (Column("batch", right=True), Column("seq", right=True), Column("share", right=True), Column("graph"),
                  Column("all SMs p50 ms", right=True), Column("share p50 ms", right=True),
                  Column("change", right=True), Column("notes"))  # fmt: skip

CLIENT_COLUMNS = (Column("client", right=True), Column("batch", right=True), Column("seq", right=True),
                  Column("SMs", right=True), Column("alone p99 ms", right=True),
                  Column("together p99 ms", right=True), Column("seq/s", right=True), Column("notes"))  # fmt: skip

SHARING_COLUMNS = (Column("sharing"), Column("SMs of client 1", right=True), Column("p50 ms", right=True),
                   Column("p99 ms", right=True), Column("seq/s", right=True), Column("notes"))  # fmt: skip


def limits_end_tables(scope: RunScope) -> list[EndTable]:
    """Return the tables of each cell of this run."""
    tables = []
    for record in scope.records:
        if not scope.mark(record):
            continue
        result, more, cell = record.result, list[EndTable](), record.cell
        if record.outcome != OK or not isinstance(result, LimitsResult):
            lines = [Line(["all", *[""] * (len(COLUMNS) - 1)], f"{record.outcome}: {record.reason}", EXCLUDED)]
        else:
            lines = [_line(row) for row in rows_of(record, result)]
            more = [*_clients(result), *_engines(result), *_sharing(result)]
        titles = heading("limits", f"{cell.model}, {cell.backend} {cell.precision}, {cell.release}")
        tables += [EndTable([machine_title(record), *titles], COLUMNS, [Group("", lines)], []), *more]
        if isinstance(result, LimitsResult):
            tables[-1] = replace(tables[-1], remarks=list(sentences(result)))
    return tables


def _clients(result: LimitsResult) -> list[EndTable]:
    """Return the table of two clients without a limit and with half of the SMs each; none without clients."""
    lines = [_noted([*row[:3], _given(row[3]), row[6], row[7], row[9]], row[-1]) for row in client_rows(result)]
    title = "two clients in one process, alone and together"
    return [EndTable([title], CLIENT_COLUMNS, [Group("", lines)])] if lines else []


def _engines(result: LimitsResult) -> list[EndTable]:
    """Return the table of engines built under a limit, also of builds that failed; none without such builds."""
    lines = [_noted(row[:7], row[-1]) for row in pair_rows(result)]
    for build in result.builds:
        if build.outcome:
            note = f"{build.outcome}: {build.reason}"
            lines.append(Line(["all", "", f"{build.share:.0%}", "", "", "", "", ""], note, EXCLUDED))
    title = "engines built on all SMs and on the share, both measured on the share"
    return [EndTable([title], ENGINE_COLUMNS, [Group("", lines)])] if lines else []


def _sharing(result: LimitsResult) -> list[EndTable]:
    lines = [_noted([*row[:4], row[5]], row[-1]) for row in sharing_rows(result)]
    title = "two clients with loads: p50 and p99 of client 1, seq/s of client 2"
    return [EndTable([title], SHARING_COLUMNS, [Group("", lines)])] if lines else []


def _line(row: list[str]) -> Line:
    *cells, _, notes = row
    cells[3] = _given(cells[3])
    return _noted(cells, notes)


def _given(units: str) -> str:
    """Return the number of SMs without that of the whole GPU."""
    return units.partition(" of ")[0]


def _noted(cells: Sequence[str], notes: str) -> Line:
    """Return a line whose note moves to the list below the table if it is long."""
    text = inline(notes)
    outcome = text.startswith(tuple(f"{name}: " for name in OUTCOMES))
    return Line([*cells, ""], text if outcome or not text else f"note: {text}" if len(text) > NOTE else text)
