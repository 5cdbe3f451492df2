"""Result of suite=serving: latencies, batches and failures under each load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from backends.json_part import Part, optional, optional_mapping
from suites.measuring.cpu_load import is_disturbed
from suites.suite import DeviceReadings, Result

SATURATED, OFFERED, SEARCH = "saturated", "offered", "search"
"""Purposes of a load: to find the highest throughput, to be in the table, or to find the highest load in a bound."""

FEWEST = {"p99": 100, "p999": 1000}
"""Fewest answers for which a percentile is shown."""


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
        shares: for each latency bound of the search, the share of the requests, without those that are too long, that
            were answered within it.
        start_ns: start of the load on the clock of suites/measuring/clock.py.
        replayed: number of batches that replayed a CUDA graph.
        tokenize_ns: time of the tokenizer, of all workers.
        gpu_busy: share of the time in which the GPU ran kernels, from NVML; None if it is not known.
        energy_mj: energy of the GPU for each answer in mJ, from NVML; None if it is not known.
        cpu_others: share of the CPU time that other processes took, with stolen time; None if it is not known, as with
            a pool of processes.
        cpu_steal: the part of it that the hypervisor gave to other virtual machines; None if it is not known.
        cpu_resolution: largest error of these shares; 0 in earlier records.
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
    shares: tuple[float, ...] = optional(())
    start_ns: int = optional(0)
    replayed: int = optional(0)
    tokenize_ns: int = optional(0)
    gpu_busy: float | None = optional(None)
    energy_mj: float | None = optional(None)
    cpu_others: float | None = optional(None)
    cpu_steal: float | None = optional(None)
    cpu_resolution: float = optional(0.0)

    @property
    def disturbed(self) -> bool:
        """Whether other processes took more of the CPU time than is allowed."""
        return is_disturbed(self.cpu_others or 0.0, self.cpu_resolution)

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
        highest: for each latency bound. Earlier records have at most one, which is not in a list.
        service: times of a batch in a worker, from its start to its answer, by its number of requests.
    """

    points: tuple[LoadPoint, ...]
    highest: tuple[HighestLoad, ...] = optional(())
    service: Mapping[str, Times] = optional_mapping()

    @classmethod
    def from_layout(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        result = dict(super().from_layout(data))
        highest = result.get("highest")
        return {**result, "highest": [highest]} if isinstance(highest, Mapping) else result


def observed(result: Result, device: DeviceReadings) -> ServingResult:
    """Return the result with the busy share and the energy of the GPU under each load."""
    assert isinstance(result, ServingResult)
    points = []
    for point in result.points:
        end = point.start_ns + round(point.seconds * 1e9)
        energy = device.energy_mj(point.start_ns, end)
        per_answer = energy / point.answered if energy is not None and point.answered else None
        points.append(replace(point, gpu_busy=device.busy_share(point.start_ns, end), energy_mj=per_answer))
    return replace(result, points=tuple(points))


RESULT = ServingResult
