"""Times that a worker needs for a batch, by its number of requests, as a record has them."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from suites.serving.result import Times

SHARES = (0.5, 0.9, 0.99, 0.999, 1.0)
"""Shares of the percentiles of `Times`. Times below the median count as the median."""


@dataclass(frozen=True)
class ServiceTimes:
    """Service times in ns.

    Attributes:
        by_size: distribution of the time of a batch, by its number of requests.
    """

    by_size: Mapping[int, Times]

    @cached_property
    def _sizes(self) -> Sequence[int]:
        return sorted(self.by_size)

    def time(self, size: int, share: float) -> int:
        """Return the time that this share of the batches of `size` requests needs at most.

        A size that was not measured has the times of the next larger one, or else of the largest one.
        """
        measured = next((known for known in self._sizes if known >= size), self._sizes[-1])
        times = self.by_size[measured]
        percentiles = (times.p50, times.p90, times.p99, times.p999, times.max)
        if share <= SHARES[0]:
            return round(times.p50)
        above = bisect.bisect_left(SHARES, share)
        low, high = SHARES[above - 1], SHARES[above]
        before, after = percentiles[above - 1], percentiles[above]
        return round(before + (after - before) * (share - low) / (high - low))
