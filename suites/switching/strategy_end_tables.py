"""The short table at the end of a run of suite=switching: strategies by their time if every request changes shape."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from suites.records.record import Record
from suites.statistics.validity import Judged, judged
from suites.switching.costs import Costs
from suites.switching.strategy_names import StrategyNames
from suites.switching.tables import costs_of, workload
from suites.tables.end_table import EXCLUDED, OWN_REMARK, Column, EndTable, Group, Line, RunScope, heading, selected
from suites.tables.markdown import machine_title
from suites.tables.models import model_names

COLUMNS = (
    Column(""), Column("strategy", shrinks=1), Column("steady ms", right=True), Column("change us", right=True),
    Column("notes", shrinks=2),
)  # fmt: skip

REMARKS = (
    OWN_REMARK,
    "steady: request with the shape of the one before; change: extra time of a new shape",
    "python -m suites.advise TRACE names the cheapest strategy for a trace of requests",
)


def switching_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each model and set of requests of this run, with the strategies of the folder."""
    models, scores = model_names(scope.records), judged(scope.folder.records("accuracy"))

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    tables = []
    for title, members in groupby(sorted(scope.records, key=title_of), key=title_of):
        records = list(members)
        if any(map(scope.mark, records)):
            headings = [machine_title(records[0]), *heading(title[0], ", ".join(title[1:-1]))]
            tables.append(EndTable(headings, COLUMNS, [_group(records, scope, scores)], REMARKS))
    return tables


def _group(records: Sequence[Record], scope: RunScope, scores: Judged) -> Group:
    names, rows = StrategyNames(records), []
    for record in records:
        strategies = [costs for costs in costs_of(record, scores) if not costs.measured_once]
        for costs in strategies:
            order = (not costs.is_valid, float(costs.means.at(1)), names.of(record, costs.cuda_graph))
            rows.append((order, record, _line(costs, names.of(record, costs.cuda_graph), scope)))
        if not strategies:
            name = names.of(record, False)
            reason = f"{record.outcome}: {record.reason}" if record.reason else "each change was measured once"
            line = Line([scope.mark(record), name, "", "", ""], reason, EXCLUDED)
            rows.append(((True, float("inf"), name), record, line))
    rows.sort(key=lambda row: row[0])
    shown = selected([scope.always_shown(record) for _, record, _ in rows])
    return Group("", [rows[index][2] for index in shown], len(rows) - len(shown))


def _line(costs: Costs, name: str, scope: RunScope) -> Line:
    steady = float(costs.means.at(0))
    figures = (f"{steady / 1e6:.3f}", f"{(float(costs.means.at(1)) - steady) / 1e3:.0f}")
    reason = f"invalid: {costs.output_faults}" if costs.output_faults else ""
    return Line([scope.mark(costs.record), name, *figures, ""], reason, EXCLUDED if reason else "")
