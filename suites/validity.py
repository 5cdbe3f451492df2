"""What lets a row's speed count: outputs that are finite and near FP32's, and no task on which the path has failed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from suites.record import Record
from suites.rows import PROFILES

Way = str
Scores = Mapping[str, Any]

NOT_THE_WAY = {*PROFILES, "cuda_graph", "threads"}
"""Options that change how fast a path is and not what it computes."""


def way(record: Record) -> Way:
    """What two records share if they ran one path: all that a cell says, but for shapes, profiles and texts."""
    cell = record.cell
    options = {name: value for name, value in cell.options.items() if name not in NOT_THE_WAY}
    parts = (record.environment["machine"], cell.model, cell.weights, cell.model_version, cell.backend, cell.release)
    return json.dumps([*parts, cell.precision, options], sort_keys=True)


def judged(accuracy: Iterable[Record]) -> dict[Way, dict[str, Scores]]:
    """Scores by way and task; of several, those with the largest loss."""
    found: dict[Way, dict[str, Scores]] = {}
    for record in accuracy:
        if not record.scores:
            continue
        tasks, task = found.setdefault(way(record), {}), str(record.cell.lengths["task"])
        if task not in tasks or _loss(record.scores) > _loss(tasks[task]):
            tasks[task] = record.scores
    return found


def past_tolerance(scores: Scores) -> str:
    """Why a path's outputs are of no use for a task; empty if they are of use."""
    if scores["nonfinite"]:
        return f"{scores['nonfinite']} outputs are NaN or Inf"
    if _loss(scores) > scores["tolerance"]:
        return f"{scores['metric']} falls by {_loss(scores):.4f}, more than {scores['tolerance']:g}"
    return ""


def problems(checks: Iterable[Mapping[str, Any]], tasks: Mapping[str, Scores]) -> list[str]:
    """All that makes a row invalid, each once."""
    of_checks = sorted({str(check["problem"]) for check in checks if check["problem"]})
    return of_checks + [f"{task}: {text}" for task, scores in sorted(tasks.items()) if (text := past_tolerance(scores))]


def _loss(scores: Scores) -> float:
    return float("inf") if scores["nonfinite"] else -float(scores["difference"])
