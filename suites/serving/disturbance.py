"""Loads during which other processes took CPU time, so that the server was delayed."""

from __future__ import annotations

from suites.serving.result import LoadPoint, ServingResult
from suites.statistics.winners import OTHERS_ALLOWED


def other_cpu(point: LoadPoint) -> float:
    """Return the share of the CPU time that other processes took; 0 if it is small or not known."""
    share = point.cpu_others or 0.0
    return share if share > OTHERS_ALLOWED else 0.0


def disturbed_loads(result: ServingResult) -> str:
    """Return the largest share of other processes and the number of loads in words; empty if no load was disturbed."""
    shares = [share for share in map(other_cpu, result.points) if share]
    if not shares:
        return ""
    loads = f"{len(shares)} of {len(result.points)} loads"
    return f"other processes took up to {max(shares):.0%} of the CPU time during {loads}"


def disturbance(result: ServingResult) -> list[str]:
    """Return a warning if other processes took much of the CPU time during a load."""
    found = disturbed_loads(result)
    return [f"{found[0].upper()}{found[1:]}. They can delay requests; measure on an idle machine."] if found else []
