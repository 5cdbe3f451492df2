"""The short table at the end of a run of suite=latency: the rows of each workload and shape, fastest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from suites.latency.answer_table import milliseconds
from suites.latency.ranking import RANK_NAMES, Baseline, RankedRow, Ranking, rankings
from suites.latency.workload_tables import workload_row
from suites.records.cell import PROFILES
from suites.records.record import OK, Record
from suites.schema.enums import Rank
from suites.statistics.validity import Judged, judged, way
from suites.statistics.winners import no_winner
from suites.tables.distinctions import Distinctions, distinctions, sources_of
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
    short_options,
)
from suites.tables.markdown import configuration, joined, machine_title
from suites.tables.models import origin_note

TIME = "p50 ms"

COLUMNS = (
    Column(""), Column("backend", shrinks=2), Column("options", shrinks=1), Column(TIME, right=True),
    Column("ratio", right=True), Column("notes", shrinks=3),
)  # fmt: skip


def latency_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each workload of this run, with the rows of the folder at the same shapes.

    A last table has the cells of this run that have no row in the others: those without a time, and those whose
    batches ran in several passes.
    """
    judging = scope.folder.records("accuracy")
    rows = _Rows(scope, Baseline.parse(scope.baseline), judged(judging), sources_of(judging))
    every = rankings(scope.records, rows.scores, rows.baseline, scope.rank)
    ranked = [ranking for ranking in every if rows.has_own(ranking)]
    tables, failed = [], [record for record in scope.records if scope.mark(record) and not _has_time(record)]
    for workload, members in groupby(ranked, key=lambda ranking: ranking.workload):
        shapes = list(members)
        here = [record for record in failed if _path(record) == _path(shapes[0].rows[0].row.record)]
        failed = [record for record in failed if record not in here]
        name, _, details = str(workload).partition(", ")
        groups = [*map(rows.of_shape, shapes), *rows.not_measured(here)]
        headings = [workload.machine, heading(name, details)]
        tables.append(EndTable(headings, _columns(scope.rank), groups, rows.remarks(shapes)))
    if groups := [*rows.in_passes(), *rows.not_measured(failed)]:
        machine = next(machine_title(record) for record in scope.records if scope.mark(record))
        tables.append(EndTable([machine, "Other cells of this run"], COLUMNS, groups))
    return tables


def _columns(rank: Rank) -> Sequence[Column]:
    request = Column("request p50 ms", right=True)
    return [request if column.name == TIME and rank is Rank.request else column for column in COLUMNS]


def _has_time(record: Record) -> bool:
    return record.outcome == OK and bool(record.measurements)


Path = tuple[str, str, str, str]


def _path(record: Record) -> Path:
    """Return the values that a cell without a time shares with the rows of its workload."""
    cell = record.cell
    return cell.model, cell.model_version, cell.weights, str(cell.lengths.get("distribution", ""))


@dataclass(frozen=True)
class _Rows:
    """Lines of rows.

    Attributes:
        sources: names of calibration texts by digest.
    """

    scope: RunScope
    baseline: Baseline
    scores: Judged
    sources: Mapping[str, str]

    @cached_property
    def common(self) -> Mapping[Path, Distinctions]:
        """Options that most rows of a workload share, by workload; a line has only the others."""
        groups = groupby(sorted(self.scope.records, key=_path), key=_path)
        return {path: distinctions(list(records), PROFILES, self.sources) for path, records in groups}

    def has_own(self, ranking: Ranking) -> bool:
        return any(self.scope.mark(item.row.record) for item in ranking.rows)

    def of_shape(self, ranking: Ranking) -> Group:
        """Return the rows of this run, the fastest row, the baseline, and the fastest of the others."""
        base = next((item for item in ranking.rows if item.speedup == 1 and self.baseline.matches(item.row)), None)
        important = [
            self.scope.always_shown(item.row.record) or item is base or place == 0
            for place, item in enumerate(ranking.rows)
        ]
        shown = [ranking.rows[index] for index in selected(important)]
        sequences = f"{ranking.batch} sequence{'s' if ranking.batch > 1 else ''}"
        title = f"{ranking.batch}x{ranking.sequence}: {sequences} of {ranking.sequence} tokens"
        reason = no_winner([item.row.contender for item in ranking.rows if not item.row.problems])
        lines = [self._line(item, item is base) for item in shown]
        return Group(title, lines, len(important) - len(shown), f"no winner: {reason}" if reason else "")

    def _line(self, item: RankedRow, is_base: bool) -> Line:
        winners = item.verdict.winners
        won = "" if not winners else "fastest" if winners == 1 else "fastest (tie)"
        notes = joined(won, "baseline" if is_base else "", "graph" if item.row.graph else "")
        ratio = "" if item.speedup is None or item.row.problems else f"{item.speedup:.2f}x"
        line = self._of(item.row.record, (milliseconds(item.row.best.p50), ratio, notes), item.excluded)
        return replace(line, style=WINNER) if winners else line

    def _of(self, record: Record, figures: Sequence[str], reason: str = "") -> Line:
        cell, options = record.cell, short_options(configuration(record, self.common[_path(record)].of(record)))
        cells = [self.scope.mark(record), f"{cell.backend} {cell.precision}", options, *figures]
        return Line(cells, reason, EXCLUDED if reason else "")

    def not_measured(self, records: Sequence[Record]) -> list[Group]:
        """Return one group with the reasons of cells that did not end well; none without such cells."""
        lines = [self._of(record, ("", "", ""), f"{record.outcome}: {record.reason}") for record in records]
        shown = selected([*map(self.scope.always_shown, records)])
        group = Group("not measured, or not complete", [lines[index] for index in shown], len(lines) - len(shown))
        return [group] if lines else []

    def in_passes(self) -> list[Group]:
        """Return the cells of this run whose batches ran in several passes, with the time of a whole batch."""
        rows = [
            (shape, workload_row(record, *shape, self.scores.get(way(record), {}))[2], record)
            for record in self.scope.records
            if self.scope.mark(record) and "passes" in record.cell.lengths and _has_time(record)
            for shape in record.cell.shapes
        ]
        rows.sort(key=lambda row: (row[0][1], row[0][0], float(row[1]["batch ms"])))
        groups = []
        for (batch, longest), members in groupby(rows, key=lambda row: row[0]):
            lines = [
                self._of(record, (cells["batch ms"], "", cells["layout"]), cells["notes"].replace("**", ""))
                for _, cells, record in members
            ]
            groups.append(Group(f"{batch}x{longest}: whole batch in several passes", lines))
        return groups

    def remarks(self, shapes: Sequence[Ranking]) -> list[str]:
        """Return the explanations of the marks and of the ratio, each at most one line."""
        if any(item.speedup is not None for ranking in shapes for item in ranking.rows):
            ratio = f"ratio: how many times as fast as {self.baseline}; baseline= names another"
        else:
            ratio = f"no ratio: {self.baseline} has no valid row here; baseline= names another"
        graph = ["graph: time of a replayed CUDA graph"] if any(i.row.graph for r in shapes for i in r.rows) else []
        records = (item.row.record for ranking in shapes for item in ranking.rows)
        origins = sorted({origin_note(record) for record in records if self.scope.mark(record)} - {""})
        ranked = [f"ranked by {RANK_NAMES[self.scope.rank]}"] if self.scope.rank is Rank.request else []
        return [OWN_REMARK, *ranked, ratio, *graph, *origins]
