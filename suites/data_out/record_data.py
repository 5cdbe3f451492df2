"""Columns that all rows of a record share, and rows of records of suite=accuracy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from suites.data_out.data_row import SUITE, DataRow
from suites.records.record import Record
from suites.statistics.validity import past_tolerance
from suites.tables.models import task_names


def record_row(record: Record) -> DataRow:
    """Return a row with the cell, the machine and the origin of a record, without figures."""
    cell, environment, maker = record.cell, record.environment, record.maker
    return DataRow(
        source=SUITE,
        suite=cell.suite,
        machine=str(environment["machine"]),
        gpu=str(environment.get("gpu", "")),
        cpu=str(environment.get("cpu", "")),
        driver=str(environment.get("driver", "")),
        device=cell.device,
        device_uuid=str(environment.get("uuid", "")),
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
        suite_version=str(maker.get("version", "")),
        commit=str(maker.get("commit", "")),
        uncommitted=maker.get("dirty"),
        harness=record.harness,
        scoring=record.scoring,
    )


def accuracy_data(records: Sequence[Record]) -> list[DataRow]:
    """Return one row for each accuracy record of one machine."""
    tasks = task_names(records)
    return [_scored(record, tasks(record)) for record in records]


def _scored(record: Record, task: str) -> DataRow:
    row, scores = replace(record_row(record), task=task), record.scores
    if not scores:
        return row
    wrong = past_tolerance(scores)
    row = replace(row, cosine=scores.get("cosine_min"), excluded=f"invalid: {wrong}" if wrong else "")
    if "value" not in scores:
        return row
    return replace(
        row,
        metric=scores["metric"],
        score=scores["value"],
        reference_score=scores["reference_value"],
        difference=scores["difference"],
        difference_low=scores.get("low"),
        difference_high=scores.get("high"),
        verdict=scores.get("verdict", ""),
        score_tolerance=scores["tolerance"],
    )


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)
