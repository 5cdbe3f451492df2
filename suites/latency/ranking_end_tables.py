"""The short table at the end of a run of suite=latency: the rows of each workload and shape, fastest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby

from suites.latency.answer_table import milliseconds
from suites.latency.figures import LatencyRow
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
from suites.tables.markdown import configuration, joined, machine_title, nodes_elsewhere
from suites.tables.models import origin_note
from suites.tasks.task_scores import TaskFigures

TIME = "p50 ms"

COLUMNS = (
    Column(""), Column("backend", shrinks=2), Column("options", shrinks=1), Column(TIME, right=True),
    Column("ratio", right=True),
)  # fmt: skip
"""The first columns. Then follow a column for each task that judged a row, and the notes."""

RANKS = {"rank agreement": " with PyTorch in FP32; 1 is the same order of all similarities"}
"""Explanations of metrics whose name alone is not clear."""


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
        metrics = _metrics(shapes)
        groups = [*(rows.of_shape(shape, [*metrics]) for shape in shapes), *rows.not_measured(here, [*metrics])]
        headings = [workload.machine, *heading(name, details)]
        tables.append(EndTable(headings, _columns([*metrics], scope.rank), groups, rows.remarks(shapes, metrics)))
    own = [record for record in scope.records if scope.mark(record)]
    others = replace(rows, names_models=len({record.cell.model for record in own}) > 1)
    if groups := [*others.in_passes(), *others.not_measured(failed)]:
        columns = _columns([], scope.rank)
        columns[1:1] = [Column("model", shrinks=4)] if others.names_models else []
        tables.append(EndTable([machine_title(own[0]), "Other cells of this run"], columns, groups))
    return tables


def _metrics(shapes: Sequence[Ranking]) -> dict[str, str]:
    """Return the metric of each task that judged a row, by the name of the task."""
    rows = [item.row for ranking in shapes for item in ranking.rows]
    found = {task: figures.metric for row in rows for task in row.tasks if (figures := _figures(row, task))}
    return dict(sorted(found.items()))


def _figures(row: LatencyRow, task: str) -> TaskFigures | None:
    scores = row.tasks.get(task)
    return scores.result.figures if scores and scores.result else None


def _columns(tasks: Sequence[str], rank: Rank) -> list[Column]:
    request = Column("request p50 ms", right=True)
    times = [request if column.name == TIME and rank is Rank.request else column for column in COLUMNS]
    return [*times, *(Column(name, right=True) for name in tasks), Column("notes", shrinks=3)]


def _score(row: LatencyRow, task: str) -> str:
    figures = _figures(row, task)
    return f"{figures.value:.4f}" if figures else ""


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
        names_models: whether a line names its model.
    """

    scope: RunScope
    baseline: Baseline
    scores: Judged
    sources: Mapping[str, str]
    names_models: bool = False

    @cached_property
    def common(self) -> Mapping[Path, Distinctions]:
        """Options that most rows of a workload share, by workload; a line has only the others."""
        groups = groupby(sorted(self.scope.records, key=_path), key=_path)
        return {path: distinctions(list(records), PROFILES, self.sources) for path, records in groups}

    def has_own(self, ranking: Ranking) -> bool:
        return any(self.scope.mark(item.row.record) for item in ranking.rows)

    def of_shape(self, ranking: Ranking, tasks: Sequence[str]) -> Group:
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
        lines = [self._line(item, item is base, tasks) for item in shown]
        return Group(title, lines, len(important) - len(shown), f"no winner: {reason}" if reason else "")

    def _line(self, item: RankedRow, is_base: bool, tasks: Sequence[str]) -> Line:
        winners = item.verdict.winners
        won = "" if not winners else "fastest" if winners == 1 else "fastest (tie)"
        remarks = "baseline" if is_base else "", "graph" if item.row.graph else "", nodes_elsewhere(item.row.record)
        notes = joined(won, *remarks)
        ratio = "" if item.speedup is None or item.row.problems else f"{item.speedup:.2f}x"
        figures = (milliseconds(item.row.best.p50), ratio, *(_score(item.row, name) for name in tasks), notes)
        line = self._of(item.row.record, figures, item.excluded)
        return replace(line, style=WINNER) if winners else line

    def _of(self, record: Record, figures: Sequence[str], reason: str = "") -> Line:
        cell, options = record.cell, short_options(configuration(record, self.common[_path(record)].of(record)))
        model = [cell.model] if self.names_models else []
        cells = [self.scope.mark(record), *model, f"{cell.backend} {cell.precision}", options, *figures]
        return Line(cells, reason, EXCLUDED if reason else "")

    def not_measured(self, records: Sequence[Record], tasks: Sequence[str] = ()) -> list[Group]:
        """Return one group with the reasons of cells that did not end well; none without such cells."""
        empty = [""] * (len(tasks) + 3)
        lines = [self._of(record, empty, f"{record.outcome}: {record.reason}") for record in records]
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

    def remarks(self, shapes: Sequence[Ranking], metrics: Mapping[str, str]) -> list[str]:
        """Return the explanations of the marks, of the ratio and of the tasks, each at most one line."""
        if any(item.speedup is not None for ranking in shapes for item in ranking.rows):
            ratio = f"ratio: how many times as fast as {self.baseline}; baseline= names another"
        else:
            ratio = f"no ratio: {self.baseline} has no valid row here; baseline= names another"
        graph = ["graph: time of a replayed CUDA graph"] if any(i.row.graph for r in shapes for i in r.rows) else []
        records = (item.row.record for ranking in shapes for item in ranking.rows)
        origins = sorted({origin_note(record) for record in records if self.scope.mark(record)} - {""})
        scores = [f"{task}: {metric}{RANKS.get(metric, '')}" for task, metric in metrics.items()]
        ranked = [f"ranked by {RANK_NAMES[self.scope.rank]}"] if self.scope.rank is Rank.request else []
        return [OWN_REMARK, *ranked, ratio, *graph, *scores, *origins]
