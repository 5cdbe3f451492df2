"""What lets a row's speed count: outputs that are finite and near FP32's, and no task on which the path has failed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from suites.cell import PROFILES
from suites.record import FAILED, TIMEOUT, Record

Way = str
Scores = Mapping[str, Any]
Judged = Mapping[Way, Mapping[str, Scores]]
"""Scores by way and task."""

NOT_THE_WAY = {"cuda_graph", "threads", "contexts", "engines", "memory_mb", "pad_to", "pad_to_multiple_of"}
"""Options that change how fast a path is and not what it computes."""

CALIBRATED = ("int8", "fp8")
"""Precisions whose outputs depend on the texts and the seed of calibration too and, in TensorRT, on the profiles that
tactics were chosen for (results/reference/findings/tensorrt.md: INT8 with a wide profile)."""

DRIFT, DRIFT_ALLOWED = 10.0, 0.01
"""How many times further from FP32, by 1 - cosine, a shape may be than its record's best, and how much besides."""

NEAR, NEAR_CALIBRATED = 0.99, 0.9
"""The smallest cosine to FP32 of a row that says something of its precision; the second of INT8 and FP8. Rounding alone
leaves pooled outputs above it: in the records, above 0.9999 of floating point and above 0.94 of the recipes of INT8
that keep their task. What lies below computes something else, as a kernel whose probabilities all round to 0."""


def way(record: Record) -> Way:
    """What two records share if they ran one path: all of a cell that changes what is computed, shapes apart."""
    cell = record.cell
    calibrated = cell.precision in CALIBRATED
    without = NOT_THE_WAY if calibrated else NOT_THE_WAY | {*PROFILES}
    options = {name: value for name, value in cell.options.items() if name not in without}
    parts = (record.environment["machine"], cell.model, cell.weights, cell.model_version, cell.backend, cell.release)
    made_from = [cell.lengths.get("texts"), cell.lengths.get("seed")] if calibrated else []
    return json.dumps([*parts, cell.precision, options, *made_from], sort_keys=True)


def judged(accuracy: Iterable[Record]) -> dict[Way, dict[str, Scores]]:
    """Scores by way and task; of several, those with the largest loss. A cell that failed or ran out of time has its
    reason as `failure`; one that is not supported, or for which something is missing, says nothing of the path."""
    found: dict[Way, dict[str, Scores]] = {}
    for record in accuracy:
        scores = dict(record.scores)
        if record.outcome in (FAILED, TIMEOUT) and not scores.get("nonfinite"):
            scores["failure"] = f"{record.outcome}: {record.reason}"
        if not scores:
            continue
        tasks, task = found.setdefault(way(record), {}), str(record.cell.lengths["task"])
        if task not in tasks or loss(scores) > loss(tasks[task]):
            tasks[task] = scores
    return found


def past_tolerance(scores: Scores) -> str:
    """Why a path's outputs are of no use for a task; empty if they are of use, or if the task has no right answers."""
    lost = loss(scores)
    if math.isfinite(lost) and not scores.get("gates", True):
        return ""
    return shortfall(scores)


def shortfall(scores: Scores) -> str:
    """How a task's figure misses FP32's by more than its tolerance; empty if it does not."""
    if "failure" in scores:
        return str(scores["failure"])
    if scores["nonfinite"]:
        return f"{scores['nonfinite']} outputs are NaN or Inf"
    lost = loss(scores)
    if not math.isfinite(lost):
        return f"{scores['metric']} is {scores['value']}"
    if lost > scores["tolerance"]:
        return f"{scores['metric']} falls by {lost:.4f}, more than {scores['tolerance']:g}"
    return ""


def problems(record: Record, shapes: Collection[tuple[int, int]], tasks: Mapping[str, Scores]) -> list[str]:
    """All that makes a row of a record invalid, each once; `shapes` are those that the row speaks of."""
    checks = [check for check in record.checks if (check["batch"], check["sequence"]) in shapes]
    found = sorted({str(check["problem"]) for check in checks if check["problem"]})
    found += [text] if not found and (text := _far(record.cell.precision, checks)) else []
    found += [text] if (text := _drift(record.checks, checks)) else []
    return found + [f"{task}: {text}" for task, scores in sorted(tasks.items()) if (text := past_tolerance(scores))]


def _far(precision: str, here: Iterable[Mapping[str, Any]]) -> str:
    """Whether outputs are further from FP32 than rounding to `precision` explains."""
    least = NEAR_CALIBRATED if precision in CALIBRATED else NEAR
    worst = min((check["cosine"] for check in here if check["cosine"] is not None), default=1.0)
    return "" if worst >= least else f"cosine {worst:.4f} to FP32, below the {least:g} of {precision}"


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


def loss(scores: Scores) -> float:
    """By how much a figure falls below FP32's; infinite where there is no figure, or none that is a number."""
    if "failure" in scores or scores["nonfinite"] or not math.isfinite(scores["difference"]):
        return math.inf
    return -float(scores["difference"])
