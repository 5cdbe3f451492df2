"""The short table at the end of a run of suite=accuracy: the rows of each model and task, the smallest loss first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from suites.records.record import OK, Record
from suites.statistics.validity import loss, past_tolerance
from suites.tables.distinctions import Distinctions, distinctions, sources_of
from suites.tables.end_table import (
    EXCLUDED,
    OWN_REMARK,
    Column,
    EndTable,
    Group,
    Line,
    RunScope,
    heading,
    selected,
    short_options,
)
from suites.tables.markdown import configuration, machine_title
from suites.tables.models import model_names, origin_note, task_names
from suites.tasks.task_scores import MetricFigures, TaskFigures, TaskScores

COLUMNS = (
    Column(""), Column("backend", shrinks=2), Column("options", shrinks=1), Column("score", right=True),
    Column("difference", right=True),
)  # fmt: skip
"""Columns before those of other metrics and the notes."""

REMARKS = (OWN_REMARK, "difference: score minus that of PyTorch in FP32 on the same texts")


def accuracy_end_tables(scope: RunScope) -> list[EndTable]:
    """Return a table for each model and task of this run, with the rows of the folder."""
    models, tasks = model_names(scope.records), task_names(scope.records)
    sources = sources_of(scope.records)

    def question_of(record: Record) -> tuple[str, str, str]:
        return models(record), record.cell.weights, tasks(record)

    tables = []
    for (model, weights, task), members in groupby(sorted(scope.records, key=question_of), key=question_of):
        records = sorted(members, key=lambda record: (record.outcome != OK, _loss(record), record.cell.id))
        if not any(map(scope.mark, records)):
            continue
        metric = next((figures.metric for record in records if (figures := _figures(record))), "")
        title = heading(model, ", ".join(text for text in (f"{weights} weights", task, metric) if text))
        others = list(dict.fromkeys(other.metric for record in records for other in _others(record)))
        columns = (*COLUMNS, *(Column(name, right=True) for name in others), Column("notes", shrinks=3))
        group = _group(records, scope, distinctions(records, sources=sources), others)
        origins = sorted({origin_note(record) for record in records if scope.mark(record)} - {""})
        tables.append(EndTable([machine_title(records[0]), *title], columns, [group], [*REMARKS, *origins]))
    return tables


def _scores(record: Record) -> TaskScores | None:
    return record.result if isinstance(record.result, TaskScores) else None


def _figures(record: Record) -> TaskFigures | None:
    scores = _scores(record)
    return scores.figures if scores else None


def _others(record: Record) -> tuple[MetricFigures, ...]:
    figures = _figures(record)
    return figures.others if figures else ()


def _loss(record: Record) -> float:
    scores = _scores(record)
    return loss(scores) if scores else float("inf")


def _group(records: Sequence[Record], scope: RunScope, common: Distinctions, others: Sequence[str]) -> Group:
    shown = selected([*map(scope.always_shown, records)])
    return Group("", [_line(records[index], scope, common, others) for index in shown], len(records) - len(shown))


def _line(record: Record, scope: RunScope, common: Distinctions, others: Sequence[str]) -> Line:
    cell, scores, score = record.cell, _scores(record), _figures(record)
    wrong = past_tolerance(scores) if scores else ""
    failed = "" if record.outcome == OK else f"{record.outcome}: {record.reason}"
    reason = failed or (f"invalid: {wrong}" if wrong else "")
    figures: tuple[str, ...] = (f"{score.value:.4f}", f"{score.difference:+.5f}") if score else ("", "")
    options = short_options(configuration(record, common.of(record)))
    named = (scope.mark(record), f"{cell.backend} {cell.precision}", options)
    more = {other.metric: f"{other.value:.4f}" for other in _others(record)}
    figures = (*figures, *(more.get(name, "") for name in others))
    return Line([*named, *figures, "" if reason or not score else score.verdict], reason, EXCLUDED if reason else "")
