"""Search for the highest load within a latency bound."""

from __future__ import annotations

import math
from collections.abc import Callable

from suites.serving.result import HighestLoad
from suites.serving.suite import Bound

CLOSE = 1.03
"""The search ends when the lowest load above the bound is at most this many times the highest load within it."""


def find_highest(is_within: Callable[[float], bool], least: float, most: float, bound: Bound) -> HighestLoad:
    """Bisect between two loads in requests per second, on a logarithmic scale, with at most `bound.steps` loads.

    Args:
        is_within: serves a load and returns whether its latencies are within the bound.
        least: tried first. If its latencies are not within the bound, no other load is tried.
        most: tried second. If its latencies are within the bound, it is the result.
    """
    if not is_within(least):
        reason = f"fewer are at {least:.3g} requests/s, the lightest load tried"
        return HighestLoad(bound.ms, bound.percentile, None, least, 1, reason)
    load, above, tried = least, math.inf, 1
    while tried < bound.steps and above > CLOSE * load and load < most:
        rate = most if above == math.inf else math.sqrt(load * above)
        tried += 1
        if is_within(rate):
            load = rate
        else:
            above = rate
    return HighestLoad(bound.ms, bound.percentile, load, None if above == math.inf else above, tried)
