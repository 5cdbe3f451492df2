"""Metrics of a path and of FP32 on the same rows, and the paired bootstrap interval of their difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from backends.base import Array
from suites.tasks.task_scores import MetricFigures, TaskFigures

RESAMPLES = 1000
"""Bootstrap resamples of the rows."""

Measure = Callable[[Array], tuple[float, float]]
"""Function that returns the metric of the path and of the reference for selected rows."""


def compared(count: int, measures: Mapping[str, Measure]) -> TaskFigures:
    """Return the metrics over all rows, and the paired bootstrap interval of their differences from the reference.

    Args:
        count: number of rows: texts, pairs or queries.
        measures: by name of the metric. The first one is the metric of the task.
    """
    first, *others = (_figures(metric, count, measure) for metric, measure in measures.items())
    return TaskFigures(
        first.metric,
        first.value,
        first.difference,
        first.reference_value,
        low=first.low,
        high=first.high,
        verdict=first.verdict,
        others=tuple(others),
    )


def _figures(metric: str, count: int, measure: Measure) -> MetricFigures:
    value, reference = measure(np.arange(count))
    generator = np.random.default_rng(0)
    resampled = [measure(generator.integers(0, count, count)) for _ in range(RESAMPLES)]
    differences = np.array([own - other for own, other in resampled])
    # A resample of few rows may have only equal values, which have no rank.
    usable = differences[np.isfinite(differences)]
    low, high = np.percentile(usable, [2.5, 97.5]) if usable.size else (np.nan, np.nan)
    conclusion = verdict(value - reference, float(low), float(high))
    return MetricFigures(metric, value, value - reference, reference, float(low), float(high), conclusion)


def verdict(difference: float, low: float, high: float) -> str:
    """Return the verdict in words: "no difference found" if the interval contains 0, "no figure" for NaN."""
    if not np.isfinite([difference, low, high]).all():
        return "no figure"
    if low <= 0 <= high:
        return "no difference found"
    return f"{'worse' if difference < 0 else 'better'} by {abs(difference):.4f}"
