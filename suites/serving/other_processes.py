"""Sentences about other processes that took CPU time while loads were served."""

from __future__ import annotations

from collections.abc import Sequence

from suites.serving.load_search import ServedLoads
from suites.serving.result import LoadPoint, ServingResult
from suites.tables.markdown import digits


def disturbance(result: ServingResult) -> list[str]:
    """Return a warning if other processes took much of the CPU time during a load."""
    found = disturbed_loads(result)
    return [f"Other processes took {found}. They can delay requests; measure on an idle machine."] if found else []


def disturbed_loads(result: ServingResult) -> str:
    """Return the largest share of other processes and the number of loads in words; empty if no load was disturbed."""
    disturbed = [point for point in result.points if point.disturbed]
    if not disturbed:
        return ""
    return f"up to {_largest_share(disturbed)} during {len(disturbed)} of {len(result.points)} loads"


def limited_searches(result: ServingResult) -> list[str]:
    """Return a sentence for each search that found a load too heavy only because of results that others disturbed."""
    return [
        _limit(result, highest.bound_ms, highest.above)
        for index, highest in enumerate(result.highest)
        if highest.above is not None
        and ServedLoads.of(result.points, index, highest.percentile / 100).limited_by_others(highest.above)
    ]


def _limit(result: ServingResult, bound_ms: float, load: float) -> str:
    points = [point for point in result.points if point.offered == load]
    disturbed, rate = [point for point in points if point.disturbed], f"{digits(load)} requests/s"
    when = f"in {len(disturbed)} of {len(points)} results of {rate}" if len(points) > 1 else f"at {rate}"
    return (
        f"Other processes limited the search for {bound_ms:g} ms: they took up to {_largest_share(disturbed)} {when}. "
        "On an idle machine, the server may carry this load."
    )


def _largest_share(points: Sequence[LoadPoint]) -> str:
    """Return the largest share of the CPU time that other processes took, and the stolen part if it is most of it."""
    most = max(points, key=lambda point: point.cpu_others or 0.0)
    others, steal = most.cpu_others or 0.0, most.cpu_steal or 0.0
    stolen = f" ({steal:.0%} was stolen: the hypervisor ran other virtual machines)" if steal > others / 2 else ""
    return f"{others:.0%} of the CPU time{stolen}"
