"""Search for the highest load within a latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suites.serving.result import HighestLoad
from suites.serving.suite import Bound

CLOSE = 1.03
"""The search ends when the lowest load above the bound is at most this many times the highest load within it."""

CLEAR = 0.5
"""A load is too heavy for certain if at most this share of its requests is within the bound.

One stall of the host, for example of 30 ms, makes more than 1% of the requests of a second late at a load that the
server carries. So a load between this share and the bound is served twice, and is too heavy if both results are."""


def is_clear(share: float, least: float) -> bool:
    """Return whether one result decides about a load: `share` of its requests are within the bound, of `least`."""
    return share >= least or share <= CLEAR


@dataclass(frozen=True)
class ServedLoads:
    """Loads that were served, and which share of their requests was within a bound.

    Attributes:
        shares: the shares of each load, by its requests per second. A load may have been served several times.
        least: the share that the bound needs.
    """

    shares: Mapping[float, Sequence[float]]
    least: float

    @property
    def known(self) -> dict[float, bool]:
        """The loads that are decided, and whether they are within the bound."""
        decided = {load for load, found in self.shares.items() if len(found) > 1 or is_clear(found[0], self.least)}
        return {load: max(self.shares[load]) >= self.least for load in decided}

    @property
    def next_unclear(self) -> float | None:
        """The lowest load that must be served again to limit the search; None if there is none."""
        highest = max((load for load, within in self.known.items() if within), default=0.0)
        limit = min((load for load, within in self.known.items() if not within and load > highest), default=math.inf)
        unclear = [load for load in self.shares if load not in self.known and highest < load < limit]
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
