"""Statistics of raw samples: percentiles, intervals over processes, and a test whether two times differ.

A time is estimated on two levels: fresh processes, and samples within each process. The samples of one process share
its memory layout, threads and clocks, so they do not predict the next process (Kalibera and Jones 2013, "Rigorous
benchmarking in reasonable time").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from suites.statistics.resampling import medians

RESAMPLES = 1000

BEYOND = 2
"""Samples that must be beyond a percentile before it is printed: p90 needs 20 samples, p99 needs 200, a quartile 8."""

CONFIDENCE = 0.96
"""Two-sided confidence at which two times count as different. In simulations with three processes each (as in
tests/statistics/test_winners.py) equal rows gave a false winner in 2 to 4 of 100 runs, and a difference of 10% was
found in 96 of 100 where processes spread by 2%."""

Samples = Sequence[float]

T = TypeVar("T", bound="Estimate | float")


@dataclass(frozen=True)
class Summary:
    """Median of samples, in their unit. Its interval is computed when it is first read."""

    p50: float
    count: int
    values: npt.NDArray[np.float64] = field(repr=False, compare=False)
    resamples: int = field(default=RESAMPLES, repr=False)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95% percentile bootstrap interval of the median (Efron 1979).

        The seed is fixed, so two tables from the same records are the same. The interval covers the noise within one
        process only, not the differences between processes or GPUs.
        """
        return bounds(medians(self.values, self.resamples))

    @property
    def low(self) -> float:
        return self.interval[0]

    @property
    def high(self) -> float:
        return self.interval[1]


@dataclass(frozen=True)
class Estimate:
    """Estimate of a time from the samples of one or more processes.

    Attributes:
        p50: geometric mean of the processes' medians; with one process, its median.
        low, high: 95% interval in the samples' unit. With several processes it covers differences between processes;
            with one process it covers only the noise within that process.
        error: standard error of the logarithm of p50 (relative, so 0.01 is 1%).
        freedom: degrees of freedom of `error`: processes - 1; 0 if nothing is known about other processes.
        processes, count: number of fresh processes, and of samples in all of them.
        device: UUID of the device that measured; empty if it is not known.
        spread: relative standard deviation between processes of the same path; NaN if it is not known.
        spread_freedom: degrees of freedom of `spread`; not used while it is NaN.
    """

    p50: float
    low: float
    high: float
    error: float
    freedom: int
    processes: int
    count: int
    device: str = ""
    spread: float = float("nan")
    spread_freedom: int = 1

    def spread_against(self, other: Estimate) -> float:
        """Return `spread` for another device of the same name, else 0.

        Processes on one device do not show how much devices differ. With one process, `error` has the spread.
        """
        return 0.0 if self.processes == 1 or self.device == other.device else self.spread


def percentile(samples: Samples, q: float) -> float | None:
    """Return the percentile `q` (0 to 100), or None if fewer than `BEYOND` samples are beyond it."""
    # The tolerance absorbs the rounding error of q / 100. Counts are whole numbers, so it has no other effect.
    if len(samples) * min(q, 100 - q) / 100 < BEYOND - 1e-9:
        return None
    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def typical(processes: Sequence[Samples]) -> float:
    """Return the p50 of `estimate` without computing the interval."""
    if len(processes) == 1:
        return float(np.median(np.asarray(processes[0], dtype=np.float64)))
    return float(np.exp(np.mean([np.log(np.median(np.asarray(samples, dtype=np.float64))) for samples in processes])))


def summarize(samples: Samples, resamples: int = RESAMPLES) -> Summary:
    """Summarize at least one sample."""
    values = np.asarray(samples, dtype=np.float64)
    return Summary(float(np.median(values)), len(values), values, resamples)


def estimate(processes: Sequence[Samples], resamples: int = RESAMPLES) -> Estimate:
    """Estimate a time from the samples of fresh processes. Each process has at least one sample, greater than 0.

    The interval of several processes is a hierarchical bootstrap: processes are drawn, then samples in each process.
    With few processes the plain bootstrap interval is too narrow. So its variance is multiplied by n / (n - 1) and its
    standard error by Student's t of n - 1 degrees of freedom (Hesterberg 2015, "What teachers should know about the
    bootstrap"). The medians of the processes already vary with their samples, so the variance of samples is subtracted
    once. It is also the lower limit of the variance. The interval of one process is that of `summarize`.
    """
    arrays = [np.asarray(samples, dtype=np.float64) for samples in processes]
    centers = np.log([np.median(values) for values in arrays])
    drawn = np.log(np.stack([medians(values, resamples) for values in arrays]))
    count, number = sum(map(len, arrays)), len(arrays)
    if number == 1:
        low, high = bounds(np.exp(drawn[0]))
        return Estimate(float(np.median(arrays[0])), low, high, float(drawn.std()), 0, 1, count)
    chosen = np.random.default_rng(0).integers(0, number, (resamples, number))
    means = np.take_along_axis(drawn.T, chosen, axis=1).mean(axis=1)
    within = float(drawn.var(axis=1).mean()) / number
    error = max((float(means.var()) - within) * number / (number - 1), within) ** 0.5
    center, half_width = float(centers.mean()), student(0.95, number - 1) * error
    low, high = (float(np.exp(center + side * half_width)) for side in (-1, 1))
    return Estimate(float(np.exp(center)), low, high, error, number - 1, number, count)


def estimate_of_figures(values: Sequence[float]) -> Estimate:
    """Estimate a time without bootstrap from one figure per process, such as a sum of medians; each greater than 0."""
    logs, number = np.log(np.asarray(values, dtype=np.float64)), len(values)
    center, error = float(logs.mean()), float(logs.std(ddof=1) / number**0.5) if number > 1 else 0.0
    half_width = student(0.95, number - 1) * error if number > 1 else 0.0
    low, middle, high = (float(np.exp(center + side * half_width)) for side in (-1, 0, 1))
    return Estimate(middle, low, high, error, number - 1, number, number)


def student(confidence: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.5 + confidence / 2))


def best_time(times: Mapping[bool, T]) -> tuple[bool, T]:
    """Return the lower of the times without and with CUDA graph: whether it is with one, and the time.

    Args:
        times: median times, or estimates, by whether CUDA graphs are replayed. One of both may be missing. Of equal
            times, the first one is returned.
    """
    graph = min(times, key=lambda cuda_graph: _p50(times[cuda_graph]))
    return graph, times[graph]


def _p50(time: Estimate | float) -> float:
    return time.p50 if isinstance(time, Estimate) else time


def slower(one: Estimate, other: Estimate) -> bool:
    """Return whether `one` is slower than `other` by more than chance explains.

    Welch's t test on logarithms. The errors of the two estimates have pooled degrees of freedom. Those of the spread
    between devices are combined with them by the formula of Satterthwaite (1946).

    Raises:
        ValueError: an estimate has no degrees of freedom: it has one process, and no study of others widened it.
    """
    difference, error, freedom = _difference(one, other)
    return difference > student(CONFIDENCE, freedom) * error


def confidence_slower(one: Estimate, other: Estimate) -> float:
    """Return the one-sided confidence that `one` is slower than `other`, by the test of `slower`; 0.5 if equal.

    `slower` is true above (1 + CONFIDENCE) / 2.

    Raises:
        ValueError: see `slower`.
    """
    from scipy.special import stdtr

    difference, error, freedom = _difference(one, other)
    if error == 0:
        return 0.5 + 0.5 * float(np.sign(difference))
    return float(stdtr(freedom, difference / error))


def _difference(one: Estimate, other: Estimate) -> tuple[float, float, float]:
    """Return the difference of the logarithms, its standard error, and the degrees of freedom."""
    if not (one.freedom and other.freedom):
        raise ValueError("an estimate of one process cannot be compared; widen it with a study of processes first")
    parts = [
        (one.error**2 + other.error**2, one.freedom + other.freedom),
        (one.spread_against(other) ** 2, one.spread_freedom),
        (other.spread_against(one) ** 2, other.spread_freedom),
    ]
    variance = sum(part for part, _ in parts)
    uncertain = sum(part**2 / freedom for part, freedom in parts if part)
    freedom = variance**2 / uncertain if uncertain else one.freedom + other.freedom
    return float(np.log(one.p50 / other.p50)), variance**0.5, freedom


def bounds(drawn: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval of figures from resamplings."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.asarray(drawn, dtype=np.float64), [tail, 100 - tail])
    return float(low), float(high)


def mean_of_blocks(samples: Sequence[float], blocks: Sequence[int], resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean of samples in consecutive blocks.

    Blocks are drawn instead of samples, because the samples of a block depend on one another (Künsch 1989).

    Args:
        samples: samples of all blocks, in order.
        blocks: number of samples of each block.
        resamples: number of bootstrap resamplings.
    """
    block_samples = np.split(np.asarray(samples, dtype=np.float64), np.cumsum(blocks)[:-1])
    sums, counts = np.array([part.sum() for part in block_samples]), np.array([len(part) for part in block_samples])
    drawn = np.random.default_rng(0).integers(0, len(block_samples), (resamples, len(block_samples)))
    return bounds(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
