"""Columns that all rows of a record share, and rows of records of suite=accuracy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from suites.data_out.data_row import SUITE, DataRow
from suites.records.parts import Maker
from suites.records.record import Record
from suites.statistics.validity import past_tolerance, scores_of
from suites.tables.models import task_names
from suites.tasks.task_scores import MetricFigures, TaskFigures


def record_row(record: Record) -> DataRow:
    """Return a row with the cell, the machine and the origin of a record, without figures."""
    cell, environment, maker = record.cell, record.environment, record.maker or Maker()
    return DataRow(
        source=SUITE,
        suite=cell.suite,
        machine=environment.machine,
        gpu=environment.gpu or "",
        cpu=environment.cpu,
        driver=environment.driver or "",
        device=cell.device,
        device_uuid=environment.uuid,
        model=cell.model,
        weights=cell.weights,
        model_version=cell.model_version,
        backend=cell.backend,
        release=cell.release,
        precision=cell.precision,
        options=_json(cell.options),
        lengths=_json(cell.lengths),
        outcome=record.outcome,
        reason=record.reason,
        cell=cell.id,
        command=shlex.join(record.command),
        measured_at=record.measured_at,
        suite_version=maker.version,
        commit=maker.commit,
        uncommitted=maker.dirty if record.maker else None,
        harness=record.harness,
        scoring=record.scoring,
    )


def accuracy_data(records: Sequence[Record]) -> list[DataRow]:
    """Return one row for each metric of each accuracy record of one machine."""
    tasks = task_names(records)
    return [row for record in records for row in _scored(record, tasks(record))]


def _scored(record: Record, task: str) -> list[DataRow]:
    row, scores = replace(record_row(record), task=task), scores_of(record)
    if scores is None:
        return [row]
    wrong, figures = past_tolerance(scores), scores.figures
    row = replace(row, excluded=f"invalid: {wrong}" if wrong else "", score_tolerance=scores.tolerance)
    if figures is None:
        return [row]
    metrics: tuple[TaskFigures | MetricFigures, ...] = (figures, *figures.others)
    return [
        replace(
            row,
            cosine=figures.cosine_min,
            metric=each.metric,
            score=each.value,
            reference_score=each.reference_value,
            difference=each.difference,
            difference_low=each.low,
            difference_high=each.high,
            verdict=each.verdict,
        )
        for each in metrics
    ]


def _json(data: Mapping[str, object]) -> str:
    return json.dumps(data, sort_keys=True)
