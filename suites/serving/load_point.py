"""Figures of a load from its samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from suites.serving.result import LoadPoint, Times
from suites.serving.serving_loop import Served
from suites.serving.suite import Bound


@dataclass(frozen=True)
class OfferedLoad:
    """A load in numbers.

    Attributes:
        purpose: see suites/serving/result.py.
        rate: scheduled requests per second; 0 for a closed loop.
        clients: of a closed loop; 0 for an open one.
        seconds: length of the schedule.
    """

    purpose: str
    rate: float
    clients: int
    seconds: float


def times_of(samples: Sequence[int]) -> Times:
    """Return the distribution of samples in ns."""
    if not samples:
        return Times(0, 0, 0, 0, 0, 0)
    values = np.asarray(samples, np.float64)
    p50, p90, p99, p999 = (float(value) for value in np.percentile(values, (50, 90, 99, 99.9)))
    return Times(float(values.mean()), p50, p90, p99, p999, float(values.max()))


def share_within(served: Served, bound: Bound) -> float:
    """Return the share of requests that were answered within the bound. A rejected request counts as late; one that is
    too long for the engine does not count."""
    requests = served.sent - served.too_long
    return sum(latency <= bound.ms * 1e6 for latency in served.latencies) / requests if requests else 0.0


def load_point(served: Served, offered: OfferedLoad, bounds: Sequence[Bound]) -> LoadPoint:
    """Return the figures of a load."""
    seconds = (served.end - served.start) / 1e9
    length = max(seconds, offered.seconds)
    return LoadPoint(
        purpose=offered.purpose,
        offered=offered.rate,
        clients=offered.clients,
        achieved=len(served.latencies) / length,
        sent=served.sent,
        answered=len(served.latencies),
        rejected=served.rejected,
        too_long=served.too_long,
        errors=served.errors,
        seconds=seconds,
        schedule_s=offered.seconds,
        latency=times_of(served.latencies),
        queue=times_of(served.queue_times),
        late=times_of(served.late),
        batches={str(size): count for size, count in sorted(served.batches.items())},
        tokens=served.tokens,
        padded_tokens=served.padded_tokens,
        session_ns=served.in_session,
        dispatch_ns=served.dispatch,
        assembly_ns=served.assembly,
        first_error=served.first_error,
        shares=tuple(share_within(served, bound) for bound in bounds),
        start_ns=served.start,
        replayed=served.replayed,
        tokenize_ns=served.tokenizing,
    )
