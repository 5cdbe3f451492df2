"""Search for the highest load within a latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from suites.serving.result import HighestLoad, LoadPoint
from suites.serving.suite import Bound

CLOSE = 1.03
"""The search ends when the lowest load above the bound is at most this many times the highest load within it."""

CLEAR = 0.5
"""A load is too heavy for certain if at most this share of its requests is within the bound.

One stall of the host, for example of 30 ms, makes more than 1% of the requests of a second late at a load that the
server carries. So a load between this share and the bound is served twice, and is too heavy if both results are."""

ATTEMPTS = 3
"""Most results of a load. Other processes can delay requests, so a result that they disturbed does not decide that a
load is too heavy. If they disturb all results, the search goes on as if the load were too heavy."""


@dataclass(frozen=True)
class LoadResult:
    """One result of a load.

    Attributes:
        share: share of the requests that were answered within the bound.
        disturbed: whether other processes took more of the CPU time than is allowed.
    """

    share: float
    disturbed: bool = False


@dataclass(frozen=True)
class ServedLoads:
    """Loads that were served, and their results for one bound.

    Attributes:
        results: the results of each load, by its requests per second. A load may have been served several times.
        least: the share of the requests that the bound needs.
    """

    results: Mapping[float, Sequence[LoadResult]]
    least: float

    @classmethod
    def of(cls, points: Iterable[LoadPoint], index: int, least: float) -> ServedLoads:
        """Return the open loops of `points`, with their results for the bound of this index."""
        results: dict[float, list[LoadResult]] = {}
        for point in points:
            if point.offered and index < len(point.shares):
                results.setdefault(point.offered, []).append(LoadResult(point.shares[index], point.disturbed))
        return cls(results, least)

    @property
    def known(self) -> dict[float, bool]:
        """The loads that are decided, and whether they are within the bound."""
        return {
            load: self._is_within(load)
            for load, results in self.results.items()
            if self._is_within(load) or self._is_too_heavy(load) or len(results) >= ATTEMPTS
        }

    def limited_by_others(self, load: float) -> bool:
        """Return whether a load is too heavy only because of results that other processes disturbed."""
        disturbed = any(result.disturbed for result in self.results.get(load, ()))
        return disturbed and not self._is_within(load) and not self._is_too_heavy(load)

    def _is_within(self, load: float) -> bool:
        return any(result.share >= self.least for result in self.results[load])

    def _is_too_heavy(self, load: float) -> bool:
        """Return whether the results that nothing disturbed decide that a load is too heavy, if none is within."""
        shares = [result.share for result in self.results[load] if not result.disturbed]
        return len(shares) > 1 or any(share <= CLEAR for share in shares)

    @property
    def next_unclear(self) -> float | None:
        """The lowest load that must be served again to limit the search; None if there is none."""
        highest = max((load for load, within in self.known.items() if within), default=0.0)
        limit = min((load for load, within in self.known.items() if not within and load > highest), default=math.inf)
        unclear = [load for load in self.results if load not in self.known and highest < load < limit]
        return min(unclear, default=None)


def find_highest(
    is_within: Callable[[float], bool], least: float, most: float, bound: Bound, known: Mapping[float, bool]
) -> HighestLoad:
    """Bisect between two loads in requests per second, on a logarithmic scale, with at most `bound.steps` loads.

    Args:
        is_within: serves a load and returns whether its latencies are within the bound.
        least: tried if no known load is within the bound. If its latencies are not within it either, the search ends.
        most: the largest load that is tried.
        known: loads that were served before, and whether their latencies were within the bound.
    """
    load, tried = max((rate for rate, within in known.items() if within), default=0.0), 0
    if not load:
        tried, lightest = 1, min([least, *known])
        if lightest in known or not is_within(lightest):
            reason = f"fewer are at {lightest:.3g} requests/s, the lightest load tried"
            return HighestLoad(bound.ms, bound.percentile, None, lightest, len({*known, lightest}), reason)
        load = lightest
    above = min((rate for rate, within in known.items() if not within and rate > load), default=math.inf)
    while tried < bound.steps and above > CLOSE * load and load < most:
        rate = most if above == math.inf else math.sqrt(load * above)
        tried += 1
        if is_within(rate):
            load = rate
        else:
            above = rate
    return HighestLoad(bound.ms, bound.percentile, load, None if above == math.inf else above, len(known) + tried)
