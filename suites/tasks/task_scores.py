"""Scores of the outputs of a path on a task, compared with FP32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part, optional
from suites.suite import Result


@dataclass(frozen=True)
class MetricFigures(Part):
    """A metric in addition to that of the task, with the attributes of TaskFigures.

    `low` and `high` are NaN if the interval cannot be computed.
    """

    metric: str
    value: float
    difference: float
    reference_value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    verdict: str = optional("")


@dataclass(frozen=True)
class TaskFigures(Part):
    """Figures of finite outputs. `metric` is the metric of the task.

    Attributes:
        metric: name of the metric.
        value, reference_value, difference: metric of the path, metric of FP32, and the first minus the second. NaN
            where it cannot be computed.
        cosine_min, cosine_mean: cosine of the outputs to those of FP32, over all rows.
        max_difference: largest absolute difference of the outputs.
        relative_error: Frobenius norm of the difference of the outputs, divided by that of the FP32 outputs.
        low, high: 95% interval of `difference` by paired bootstrap; None for a metric whose rows share texts.
        verdict: the conclusion that the interval supports; empty without an interval.
        changed: share of predictions that differ from those of FP32; None for a metric without predictions.
        exact_match, reference_exact_match: share of exact answers of the path and of FP32; None for other tasks.
        gates: whether the figure can make a path invalid.
        others: more metrics of the task, which do not make a path invalid.
    """

    metric: str
    value: float
    difference: float
    reference_value: float = math.nan
    cosine_min: float = math.nan
    cosine_mean: float = math.nan
    max_difference: float = math.nan
    relative_error: float = math.nan
    low: float | None = optional(None)
    high: float | None = optional(None)
    verdict: str = optional("")
    changed: float | None = optional(None)
    exact_match: float | None = optional(None)
    reference_exact_match: float | None = optional(None)
    gates: bool = optional(True)
    others: tuple[MetricFigures, ...] = optional(())

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% interval of the difference, if there is one."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True)
class TaskScores(Result):
    """Result of a task.

    Attributes:
        nonfinite: number of outputs that are NaN or Inf.
        figures: None if some outputs are not finite.
        tolerance: largest loss of the metric against FP32.
        targets: digest of the targets that the outputs were scored against.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"figures": TaskFigures}

    nonfinite: int
    figures: TaskFigures | None = None
    tolerance: float | None = optional(None)
    targets: str = optional("")
