"""Validity of a row in a table.

A row is valid if its outputs are finite and close to those of FP32, and if its path has not failed a task.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from backends.model_output import LOGITS, SCORE
from suites.records.cell import PROFILES, Cell
from suites.records.parts import Check
from suites.records.record import FAILED, TIMEOUT, Record
from suites.tasks.task_scores import TaskScores

ComputedPath = str


@dataclass(frozen=True)
class Scores:
    """Outcome of a task: its scores, or the reason why the cell failed.

    Attributes:
        result: None if the cell has no scores.
        failure: outcome and reason of a cell that failed or timed out; empty otherwise.
    """

    result: TaskScores | None
    failure: str = ""

    @property
    def loss(self) -> float:
        """How far the figure is below that of FP32; infinite without a figure."""
        return math.inf if self.failure or self.result is None else loss(self.result)

    @property
    def gates(self) -> bool:
        """Whether the task can make a path invalid."""
        figures = self.result.figures if self.result else None
        return figures is None or figures.gates

    @property
    def past_tolerance(self) -> str:
        """The reason why the path fails the task, as in the function of this name."""
        return self.failure or (past_tolerance(self.result) if self.result else "")


Judged = Mapping[ComputedPath, Mapping[str, Scores]]
"""Outcomes of tasks by path and task."""

SPEED_OPTIONS = {
    "cuda_graph", "threads", "contexts", "engines", "memory_mb", "pad_to", "pad_to_multiple_of", "output",
}  # fmt: skip
"""Options that change the speed of a path but not its hidden states. A task judges a path for all its outputs."""

CALIBRATED = ("int8", "fp8")
"""Precisions whose outputs also depend on the texts and the seed of calibration. In TensorRT they also depend on the
profiles, because tactics are chosen for them (results/reference/findings/tensorrt.md: INT8 with a wide profile)."""

DRIFT, DRIFT_ALLOWED = 10.0, 0.01
"""Largest distance from FP32 (1 - cosine) at a shape: `DRIFT` times the smallest distance in its record, plus
`DRIFT_ALLOWED`."""

NEAR, NEAR_CALIBRATED = 0.99, 0.9
"""Smallest cosine to FP32 of a valid row; `NEAR_CALIBRATED` is for INT8 and FP8. Rounding alone gives higher values for
pooled outputs: in the records, above 0.9999 for floating point, and above 0.94 for INT8 recipes that pass their task.
A lower cosine means an error, for example a kernel whose probabilities all round to 0."""

NEAR_ZERO = "random weights give scores near zero; measure trained weights to decide"
"""Addition to a cosine below these limits. The weights of a random head have a standard deviation of about 0.02, so its
outputs are about 0.01, and rounding to INT8 changes most of such a value."""


def way(record: Record) -> ComputedPath:
    """Return the key of a record's path. Two records have the same key if they differ only in shapes and speed."""
    cell = record.cell
    calibrated = cell.precision in CALIBRATED
    without = SPEED_OPTIONS if calibrated else SPEED_OPTIONS | {*PROFILES}
    options = {name: value for name, value in cell.options.items() if name not in without}
    parts = (record.environment.machine, cell.model, cell.weights, cell.model_version, cell.backend, cell.release)
    made_from = [cell.lengths.get("texts"), cell.lengths.get("seed")] if calibrated else []
    return json.dumps([*parts, cell.precision, options, *made_from], sort_keys=True)


def judged(accuracy: Iterable[Record]) -> dict[ComputedPath, dict[str, Scores]]:
    """Return scores by path and task. If several records have the same path and task, the largest loss counts.

    The scores of a cell that failed or timed out have its reason as `failure`. Unsupported or unavailable cells are
    skipped.
    """
    scores_by_path: dict[ComputedPath, dict[str, Scores]] = {}
    for record in accuracy:
        result = scores_of(record)
        failed = record.outcome in (FAILED, TIMEOUT) and not (result and result.nonfinite)
        if not failed and result is None:
            continue
        scores = Scores(result, f"{record.outcome}: {record.reason}" if failed else "")
        tasks, task = scores_by_path.setdefault(way(record), {}), str(record.cell.lengths["task"])
        if task not in tasks or scores.loss > tasks[task].loss:
            tasks[task] = scores
    return scores_by_path


def scores_of(record: Record) -> TaskScores | None:
    """Return the scores of a record of suite=accuracy; None without scores and for other suites."""
    return record.result if isinstance(record.result, TaskScores) else None


def past_tolerance(scores: TaskScores) -> str:
    """Return the reason why a path fails a task; empty if it passes, or if the task does not decide validity."""
    lost = loss(scores)
    if math.isfinite(lost) and scores.figures and not scores.figures.gates:
        return ""
    return shortfall(scores)


def shortfall(scores: TaskScores) -> str:
    """Return the reason if a task's figure is below that of FP32 by more than the tolerance; else an empty text."""
    figures = scores.figures
    if scores.nonfinite or figures is None:
        return f"{scores.nonfinite} outputs are NaN or Inf"
    lost = loss(scores)
    if not math.isfinite(lost):
        return f"{figures.metric} is {figures.value}"
    if scores.tolerance is not None and lost > scores.tolerance:
        return f"{figures.metric} falls by {lost:.4f}, more than {scores.tolerance:g}"
    return ""


def problems(record: Record, shapes: Collection[tuple[int, int]], tasks: Mapping[str, Scores]) -> list[str]:
    """Return all reasons why a row of a record is invalid, each once; `shapes` are the shapes of the row."""
    checks = [check for check in record.checks if check.shape in shapes]
    problems_found = sorted({check.problem for check in checks if check.problem})
    cosine_problems = [text] if not problems_found and (text := _far(record.cell.precision, checks)) else []
    cosine_problems += [text] if (text := _drift(record.checks, checks)) else []
    if cosine_problems and _near_zero(record.cell):
        cosine_problems.append(NEAR_ZERO)
    return (
        problems_found
        + cosine_problems
        + [f"{task}: {text}" for task, scores in sorted(tasks.items()) if (text := scores.past_tolerance)]
    )


def _near_zero(cell: Cell) -> bool:
    """Whether the outputs are near zero: those of a head with random weights."""
    return cell.weights.startswith("random") and cell.output in (SCORE, LOGITS)


def _far(precision: str, row_checks: Iterable[Check]) -> str:
    """Return the problem if outputs are further from FP32 than rounding to `precision` explains; else an empty text."""
    least = NEAR_CALIBRATED if precision in CALIBRATED else NEAR
    worst = min((check.cosine for check in row_checks if check.cosine is not None), default=1.0)
    return "" if worst >= least else f"cosine {worst:.4f} to FP32, below the {least:g} of {precision}"


def _drift(all_checks: Iterable[Check], row_checks: Iterable[Check]) -> str:
    """Return the problem if outputs are much worse here than at the record's best shape; else an empty text.

    Rounding errors are similar at all shapes. Faults of a kernel are not.
    """
    finite = [(check.cosine, check) for check in all_checks if check.cosine is not None]
    worst = min((check.cosine for check in row_checks if check.cosine is not None), default=None)
    if worst is None:
        return ""
    best, check = max(finite, key=lambda pair: pair[0])
    if 1 - worst <= DRIFT * (1 - best) + DRIFT_ALLOWED:
        return ""
    elsewhere = f"{best:.4f} at {check.batch}x{check.sequence}"
    return f"outputs depend on the shape: cosine {worst:.4f}, {elsewhere}"


def loss(scores: TaskScores) -> float:
    """Return how far a figure is below that of FP32; infinite if there is no figure or it is not a number."""
    figures = None if scores.nonfinite else scores.figures
    return -figures.difference if figures and math.isfinite(figures.difference) else math.inf
