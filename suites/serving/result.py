"""Result of suite=serving: latencies, batches and failures under each load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.json_part import Part, optional
from suites.suite import Result

SATURATED, OFFERED, SEARCH = "saturated", "offered", "search"
"""Purposes of a load: to find the highest throughput, to be in the table, or to find the highest load in a bound."""


@dataclass(frozen=True)
class Times(Part):
    """Distribution of a time in ns: mean, percentiles and maximum. All are 0 without samples."""

    mean: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


@dataclass(frozen=True)
class LoadPoint(Part):
    """One load and how it was served.

    Attributes:
        purpose: SATURATED, OFFERED or SEARCH.
        offered: scheduled requests per second; 0 for a closed loop, whose clients wait for answers.
        clients: of a closed loop; 0 for an open loop.
        achieved: answers per second, from the start to the last answer, or to the end of the schedule if it is later.
        sent: requests that arrived. answered, rejected (the queue was full), too_long (for the engine) and errors (of
            the session) add up to it.
        seconds: from the start to the last answer. schedule_s: length of the schedule, or of a closed loop.
        latency: from the scheduled arrival to the answer, of answered requests.
        queue: from the scheduled arrival to the start of the batch.
        late: time after its scheduled arrival at which a waiting server noticed a request: the generator's error.
        batches: number of batches by their number of requests.
        tokens, padded_tokens: of all batches, without padding and with it.
        session_ns: time in the session.
        dispatch_ns, assembly_ns: time in Python, to admit requests and choose batches, and to make arrays.
        first_error: the first error of the session in one line.
        within: share of the requests, without those that are too long, that were answered within the latency bound;
            None without a bound.
    """

    purpose: str
    offered: float
    clients: int
    achieved: float
    sent: int
    answered: int
    rejected: int
    too_long: int
    errors: int
    seconds: float
    schedule_s: float
    latency: Times
    queue: Times
    late: Times
    batches: Mapping[str, int]
    tokens: int
    padded_tokens: int
    session_ns: int
    dispatch_ns: int
    assembly_ns: int
    first_error: str = optional("")
    within: float | None = optional(None)

    @property
    def mean_batch(self) -> float:
        """Mean number of requests of a batch; 0 without batches."""
        count = sum(self.batches.values())
        return sum(int(size) * number for size, number in self.batches.items()) / count if count else 0.0

    @property
    def python_ns(self) -> float:
        """Python's own time for each answered request, in ns."""
        return (self.dispatch_ns + self.assembly_ns) / max(self.answered, 1)


@dataclass(frozen=True)
class HighestLoad(Part):
    """Highest load within a latency bound.

    Attributes:
        bound_ms, percentile: the bound, and the percentile of latencies that it is for.
        load: highest tried load within the bound, in requests per second; None if no load was.
        above: lowest tried load that was not within the bound; None if all loads were.
        tried: number of loads that were tried.
        reason: why there is no load; empty if there is one.
    """

    bound_ms: float
    percentile: float
    load: float | None
    above: float | None
    tried: int
    reason: str = optional("")


@dataclass(frozen=True)
class ServingResult(Result):
    """All loads.

    Attributes:
        points: in the order of the measurement.
        highest: None if no bound was requested.
    """

    points: tuple[LoadPoint, ...]
    highest: HighestLoad | None = optional(None)


RESULT = ServingResult
