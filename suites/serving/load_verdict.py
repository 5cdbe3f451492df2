"""Whether a server keeps up with a load: from the time that it takes after the last arrival of the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

from suites.serving.result import LoadPoint

SLACK = 0.03
"""Largest share of the schedule by which a server that keeps up is late at its end."""

DOUBT = 2.576
"""Standard deviations of the number of arrivals that chance explains: two sides of a normal distribution, 99%."""


class Verdict(Enum):
    """Whether the server keeps up. The value is the note of the row."""

    keeps_up = ""
    undecided = "too few requests to say if the server keeps up; raise suite.seconds"
    too_high = "more requests than the server can answer"


@dataclass(frozen=True)
class ServerRules:
    """Facts of a server and its arrivals that move the end of a load.

    Attributes:
        workers: batches that run at the same time.
        burst: requests that arrive at once.
        wait_ms: time that an incomplete batch waits.
    """

    workers: int
    burst: int
    wait_ms: float


def rules_of(options: Mapping[str, object]) -> ServerRules:
    """Return the rules from the options of a cell."""
    workers, burst = cast(int, options.get("workers", 1)), cast(int, options.get("burst", 1))
    return ServerRules(workers, burst, cast(float, options.get("wait_ms", 0)))


def most_late(requests: float, burst: int) -> float:
    """Return the share of the schedule by which a server whose throughput equals the load may be late at its end.

    The queue at the end is the largest excess of arrivals over answers in any last part of the schedule. For Poisson
    arrivals this is the maximum of a Brownian motion. By the reflection principle it is above a value with twice the
    probability of its end, whose standard deviation is the square root of the number of requests.

    Args:
        requests: mean number of requests of the schedule.
    """
    return DOUBT * math.sqrt(burst / requests)


def verdict(point: LoadPoint, rules: ServerRules) -> Verdict:
    """Return whether the server keeps up with a load. It always does with clients that wait for answers.

    The last request waits for the batch that runs at its arrival, and is in the next one. So two passes and the wait
    for an incomplete batch do not count as late.
    """
    if not point.offered or not point.schedule_s:
        return Verdict.keeps_up
    if point.rejected:
        return Verdict.too_high
    late = (point.seconds - rules.wait_ms / 1e3 - 2 * _pass_s(point, rules.workers)) / point.schedule_s - 1
    if late <= SLACK:
        return Verdict.keeps_up
    return Verdict.undecided if late <= most_late(point.offered * point.schedule_s, rules.burst) else Verdict.too_high


def _pass_s(point: LoadPoint, workers: int) -> float:
    """Return the mean time of a batch in seconds.

    A server in another process has its own queue, so a request is with the worker for longer than its batch runs. The
    time of all batches bounds this.
    """
    batches = sum(point.batches.values())
    if not batches:
        return 0.0
    return min(max(0.0, point.latency.mean - point.queue.mean) / 1e9, point.seconds * workers / batches)
