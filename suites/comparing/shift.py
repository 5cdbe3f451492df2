"""Ratio of two times with a confidence interval over processes, and a verdict.

A fresh process is the unit of replication: the samples of one process share its memory layout, threads and clocks
(Kalibera and Jones 2013, "Rigorous benchmarking in reasonable time"). So each process counts with its median. The test
is Welch's t test of the logarithms of these medians (Welch 1947). `suites/comparing/verdict_rates.py` measures its rate
of false verdicts on the committed records.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np
import numpy.typing as npt

FASTER, SLOWER, NO_DIFFERENCE, NO_VERDICT = "faster", "slower", "no difference found", "no verdict"
"""Verdicts about side B, compared with side A."""

FALSE_VERDICTS = 0.02
"""Nominal probability that a command with two equal sides has any verdict `faster` or `slower`. It is below the goal
of 5%, because noise is not exactly log-normal, and because 200 comparisons are few."""

POWER = 0.9
"""Probability with which the smallest difference that is shown would have been found."""

NORMAL_QUANTILE = NormalDist().inv_cdf(POWER)

LEAST_PROCESSES = 3
"""Fewest processes of a side for a verdict. With two, the interval is wider than any difference of practical use."""

LEAST_SPREAD = 0.001
"""Lower limit of the relative standard deviation between processes. The medians of a few processes can be equal by
chance or by the resolution of the clock, and then their own spread is too small. The committed studies with CUDA
graphs have spreads from 0.02% to 0.8%."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """Times of side B divided by those of side A.

    Attributes:
        ratio: quotient of the geometric means of the processes' medians; above 1 if B is slower.
        low, high: confidence interval of the ratio. The intervals of all rows of a command contain all true ratios
            with a probability of 1 - `FALSE_VERDICTS`. NaN with too few processes.
        smallest: smallest slowdown, as a share, that these runs would show with a probability of `POWER`. NaN with too
            few processes.
    """

    ratio: float
    low: float = float("nan")
    high: float = float("nan")
    smallest: float = float("nan")

    @property
    def verdict(self) -> str:
        """One of the verdicts; `NO_VERDICT` with too few processes."""
        if math.isnan(self.low):
            return NO_VERDICT
        if self.low > 1:
            return SLOWER
        return FASTER if self.high < 1 else NO_DIFFERENCE

    def exceeds(self, tolerance: float) -> bool:
        """Return whether B is slower, and its ratio is above 1 + `tolerance`."""
        return self.verdict == SLOWER and self.ratio > 1 + tolerance


def has_enough(*counts: int) -> bool:
    """Return whether all numbers of processes allow a verdict."""
    return min(counts) >= LEAST_PROCESSES


def shift_of(a: Sequence[float], b: Sequence[float], rows: int = 1) -> Shift:
    """Compare the medians of the processes of two sides, each in the same unit and greater than 0.

    Args:
        rows: number of rows with a verdict in the same command. The probability of a false verdict is divided among
            them (Bonferroni).
    """
    logs_a, logs_b = np.log(np.asarray(a, dtype=np.float64)), np.log(np.asarray(b, dtype=np.float64))
    if not has_enough(len(a), len(b)):
        return Shift(float(np.exp(logs_b.mean() - logs_a.mean())))
    difference, half_width, smallest = (float(figure) for figure in log_shifts(logs_a, logs_b, rows))
    low, middle, high = (float(np.exp(difference + side * half_width)) for side in (-1, 0, 1))
    return Shift(middle, low, high, float(np.expm1(smallest)))


def log_shifts(a: Floats, b: Floats, rows: int = 1) -> tuple[Floats, Floats, Floats]:
    """Compare many pairs of samples at once.

    Args:
        a, b: logarithms of medians, shapes [..., processes]; at least two processes in each.

    Returns:
        The difference B - A of the logarithms, half the width of its confidence interval, and the smallest difference
        that would be found, each of shape [...].
    """
    variances = [np.maximum(side.var(axis=-1, ddof=1), LEAST_SPREAD**2) / side.shape[-1] for side in (a, b)]
    error = np.sqrt(variances[0] + variances[1])
    freedom = error**4 / sum(
        variance**2 / (side.shape[-1] - 1) for variance, side in zip(variances, (a, b), strict=True)
    )
    critical = _quantile(1 - FALSE_VERDICTS / rows / 2, freedom)
    # Non-central t distribution, in the normal approximation of Abramowitz and Stegun 1964, equation 26.7.10.
    shift = critical * (1 - 1 / (4 * freedom)) + NORMAL_QUANTILE * np.sqrt(1 + critical**2 / (2 * freedom))
    return b.mean(axis=-1) - a.mean(axis=-1), error * critical, error * shift


def _quantile(probability: float, freedom: Floats) -> Floats:
    """Return quantiles of Student's t distribution."""
    from scipy.special import stdtrit  # importing it takes longer than reading the arguments

    return cast("Floats", stdtrit(freedom, probability))
