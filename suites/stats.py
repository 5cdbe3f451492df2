"""Summaries of raw samples, and whether two figures differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from suites.resampling import medians

RESAMPLES = 1000


@dataclass(frozen=True)
class Summary:
    """Percentiles of samples, in their unit. The interval of the median is computed when it is first read."""

    p50: float
    p90: float
    p99: float
    count: int
    values: npt.NDArray[np.float64] = field(repr=False, compare=False)
    resamples: int = field(default=RESAMPLES, repr=False)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95% percentile bootstrap of the median (Efron 1979), from a fixed seed so that a table made twice from the
        same records is the same. It speaks of this run's noise alone, not of other processes or GPUs."""
        return bounds(medians(self.values, self.resamples))

    @property
    def low(self) -> float:
        return self.interval[0]

    @property
    def high(self) -> float:
        return self.interval[1]


def summarize(samples: Sequence[float], resamples: int = RESAMPLES) -> Summary:
    """Summary of at least one sample."""
    values = np.asarray(samples, dtype=np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return Summary(float(p50), float(p90), float(p99), len(values), values, resamples)


def bounds(drawn: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Ends of the percentile interval of figures from resamplings."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.asarray(drawn, dtype=np.float64), [tail, 100 - tail])
    return float(low), float(high)


def mean_of_blocks(samples: Sequence[float], blocks: Sequence[int], resamples: int = 1000) -> tuple[float, float]:
    """A 95% bootstrap interval of the mean of samples that lie in blocks of so many each: blocks are drawn and not
    samples, for those of a block depend on one another (Künsch 1989)."""
    parts = np.split(np.asarray(samples, dtype=np.float64), np.cumsum(blocks)[:-1])
    sums, counts = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts])
    drawn = np.random.default_rng(0).integers(0, len(parts), (resamples, len(parts)))
    return bounds(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
