"""Replicas that a load needs, from serving records: measured for one device, and simulated for several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from suites.latency.achieved import packs_tokens
from suites.records.record import OK, Record
from suites.serving.batch_policy import BatchPolicy
from suites.serving.result import FEWEST, SATURATED, LoadPoint, ServingResult
from suites.serving.service_times import ServiceTimes
from suites.serving.simulation import SimulatedServer

PERCENTILES = {50.0: "p50", 90.0: "p90", 99.0: "p99", 99.9: "p999"}
"""Fields of Times by percentile."""

SIMULATED = 20_000
"""Requests of a simulation."""

COMPARED = 5
"""Configurations that are simulated: those that need the fewest devices at their measured loads."""

STEPS = 5
"""Loads that are simulated to find the margin."""


@dataclass(frozen=True)
class Demand:
    """A load and its latency bound.

    Attributes:
        load: requests per second.
        bound_ms, percentile: the bound, and the percentile of latencies that it is for.
    """

    load: float
    bound_ms: float
    percentile: float = 99.0


@dataclass(frozen=True)
class Configuration:
    """A record and the devices that it needs for a demand.

    Attributes:
        highest: highest measured load of one device within the bound, in requests per second.
        replicas: number of devices.
        carried: highest load that these devices carry within the bound.
        latency_ms: the percentile of latencies under the load.
        simulated: whether `replicas`, `carried` and `latency_ms` are simulated. Otherwise they are measured.
    """

    record: Record
    highest: float
    replicas: int
    carried: float
    latency_ms: float
    simulated: bool

    def margin(self, demand: Demand) -> float:
        """Return the load that the devices carry beyond the demand, as a share of the demand."""
        return self.carried / demand.load - 1

    def device_hours(self, demand: Demand) -> float:
        """Return the device hours for a million requests."""
        return self.replicas * 1e6 / demand.load / 3600


def plan(records: Iterable[Record], demand: Demand) -> list[Configuration]:
    """Return the configurations that carry the demand, the one with the fewest devices first.

    Args:
        records: of suite=serving, of one model and one distribution of lengths.
    """
    loads = [(highest, record) for record in records if (highest := highest_load(record, demand))]
    loads.sort(key=lambda pair: (math.ceil(demand.load / pair[0]), -pair[0]))
    configurations = [_configuration(record, highest, demand) for highest, record in loads[:COMPARED]]
    return sorted(configurations, key=lambda found: (found.replicas, -found.margin(demand)))


def highest_load(record: Record, demand: Demand) -> float | None:
    """Return the highest measured load of requests at random times within the bound; None if there is none.

    It is the result of a search for this bound, or else the highest load that was offered.
    """
    result = record.result
    if (
        record.outcome != OK
        or not isinstance(result, ServingResult)
        or record.cell.options.get("arrivals") != "poisson"
    ):
        return None
    for highest in result.highest:
        if (highest.bound_ms, highest.percentile) == (demand.bound_ms, demand.percentile):
            return highest.load
    return max((point.offered for point in result.points if point.offered and _within(point, demand)), default=None)


def simulated_server(record: Record) -> SimulatedServer | None:
    """Return the server of a record for a simulation; None if the record has no service times.

    Requests have the mean number of tokens, and batches the measured times, whatever their lengths.
    """
    result, options = record.result, record.cell.options
    assert isinstance(result, ServingResult)
    if not result.service:
        return None
    answered = sum(point.answered for point in result.points)
    policy = BatchPolicy(
        most_requests=options.get("most_requests", 1),
        most_tokens=options.get("most_tokens", 0),
        wait_ns=round(options.get("wait_ms", 0.0) * 1e6),
        queue=options.get("queue", 1000),
        packed=packs_tokens(record),
    )
    service = ServiceTimes({int(size): times for size, times in result.service.items()})
    tokens = max(1, round(sum(point.tokens for point in result.points) / answered)) if answered else 1
    return SimulatedServer(policy, service, options.get("workers", 1), tokens)


def simulated_latency(server: SimulatedServer, demand: Demand, replicas: int) -> float:
    """Return the percentile of latencies in ms; infinite if requests are rejected."""
    served = server.serve(demand.load, SIMULATED, replicas, seed=0)
    if served.rejected or not served.latencies:
        return math.inf
    return float(np.percentile(served.latencies, demand.percentile)) / 1e6


def replicas_needed(server: SimulatedServer, demand: Demand, fewest: int, most: int) -> int | None:
    """Return the smallest number of replicas from `fewest` to `most` within the bound; None if there is none."""

    def within(replicas: int) -> bool:
        return simulated_latency(server, demand, replicas) <= demand.bound_ms

    if not within(most):
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        fewest, most = (fewest, middle) if within(middle) else (middle + 1, most)
    return most


def _configuration(record: Record, highest: float, demand: Demand) -> Configuration:
    """Return the devices for a record.

    Without service times, or if the simulation is not within the bound, each device has its own share of the load.
    """
    alone = math.ceil(demand.load / highest)
    server, result = simulated_server(record), record.result
    assert isinstance(result, ServingResult)
    measured = Configuration(record, highest, alone, alone * highest, _measured_latency(result, demand, alone), False)
    if alone == 1 or server is None:
        return measured
    saturated = max((point.achieved for point in result.points if point.purpose == SATURATED), default=highest)
    # One device was measured, and did not carry the load.
    replicas = replicas_needed(server, demand, max(2, math.ceil(demand.load / max(saturated, highest))), alone)
    if replicas is None:
        return measured
    latency = simulated_latency(server, demand, replicas)
    carried = _carried(lambda load: simulated_latency(server, load, replicas), demand, replicas * saturated)
    return Configuration(record, highest, replicas, carried, latency, True)


def _carried(latency: Callable[[Demand], float], demand: Demand, most: float) -> float:
    """Bisect between the load of the demand, which is within the bound, and `most`."""
    low, high = demand.load, max(demand.load, most)
    for _ in range(STEPS):
        middle = (low + high) / 2
        within = latency(Demand(middle, demand.bound_ms, demand.percentile)) <= demand.bound_ms
        low, high = (middle, high) if within else (low, middle)
    return low


def _measured_latency(result: ServingResult, demand: Demand, devices: int) -> float:
    """Return the percentile of latencies in ms at the smallest measured load of at least the share of one device.

    Return NaN if there is none within the bound.
    """
    share = demand.load / devices
    points = [point for point in result.points if point.offered >= share and _within(point, demand)]
    nearest: Sequence[LoadPoint] = sorted(points, key=lambda point: point.offered)[:1]
    return _latency(nearest[0], demand) if nearest else math.nan


def _within(point: LoadPoint, demand: Demand) -> bool:
    enough = point.answered >= FEWEST.get(PERCENTILES[demand.percentile], 1)
    return enough and not point.rejected and not point.errors and _latency(point, demand) <= demand.bound_ms


def _latency(point: LoadPoint, demand: Demand) -> float:
    return float(getattr(point.latency, PERCENTILES[demand.percentile])) / 1e6


def shortest_latency(records: Iterable[Record], demand: Demand) -> float | None:
    """Return the smallest measured percentile of latencies in ms at any load; None if there is none."""
    points = [
        point
        for record in records
        if isinstance(record.result, ServingResult)
        for point in record.result.points
        if point.offered and point.answered >= FEWEST.get(PERCENTILES[demand.percentile], 1)
    ]
    return min((_latency(point, demand) for point in points), default=None)
