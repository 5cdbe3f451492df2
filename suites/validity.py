"""What lets a row's speed count: outputs that are finite and near FP32's, and no task on which the path has failed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from suites.record import Record
from suites.tables.options import PROFILES

Way = str
Scores = Mapping[str, Any]

NOT_THE_WAY = {*PROFILES, "cuda_graph", "threads", "contexts", "engines", "memory_mb", "pad_to"}
"""Options that change how fast a path is and not what it computes."""

DRIFT, DRIFT_ALLOWED = 10.0, 0.01
"""How many times further from FP32, by 1 - cosine, a shape may be than its record's best, and how much besides."""


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


def problems(record: Record, shapes: Collection[tuple[int, int]], tasks: Mapping[str, Scores]) -> list[str]:
    """All that makes a row of a record invalid, each once; `shapes` are those that the row speaks of."""
    checks = [check for check in record.checks if (check["batch"], check["sequence"]) in shapes]
    found = sorted({str(check["problem"]) for check in checks if check["problem"]})
    found += [text] if (text := _drift(record.checks, checks)) else []
    return found + [f"{task}: {text}" for task, scores in sorted(tasks.items()) if (text := past_tolerance(scores))]


def _drift(everywhere: Iterable[Mapping[str, Any]], here: Iterable[Mapping[str, Any]]) -> str:
    """Whether outputs are far worse here than at the record's best shape: rounding is alike at all, faults are not."""
    known = [check for check in everywhere if check["cosine"] is not None]
    worst = min((check["cosine"] for check in here if check["cosine"] is not None), default=None)
    if worst is None:
        return ""
    best = max(known, key=lambda check: float(check["cosine"]))
    if 1 - worst <= DRIFT * (1 - best["cosine"]) + DRIFT_ALLOWED:
        return ""
    elsewhere = f"{best['cosine']:.4f} at {best['batch']}x{best['sequence']}"
    return f"outputs depend on the shape: cosine {worst:.4f}, {elsewhere}"


def _loss(scores: Scores) -> float:
    return float("inf") if scores["nonfinite"] else -float(scores["difference"])
