"""Summaries of raw samples, and whether two figures differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Summary:
    """Percentiles of the samples and a 95% bootstrap interval of their median, in the samples' unit."""

    p50: float
    p90: float
    p99: float
    low: float
    high: float
    count: int


def summarize(samples: Sequence[float], resamples: int = 1000, confidence: float = 0.95) -> Summary:
    """Summary of at least one sample.

    The interval is the percentile bootstrap of the median (Efron 1979), from a fixed seed so that a table made
    twice from the same records is the same. It speaks of this run's noise alone, not of other processes or GPUs.
    """
    values = np.asarray(samples, dtype=np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    generator = np.random.default_rng(0)
    medians = np.median(generator.choice(values, (resamples, len(values))), axis=1)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(medians, [tail, 100 - tail])
    return Summary(float(p50), float(p90), float(p99), float(low), float(high), len(values))


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
