"""Search for the highest load within a latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from suites.serving.result import HighestLoad
from suites.serving.suite import Bound

CLOSE = 1.03
"""The search ends when the lowest load above the bound is at most this many times the highest load within it."""


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
