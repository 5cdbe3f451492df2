"""Result of suite=limits: times of a step on shares of the compute units, of engines built on a share, and of two
clients of one device."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backends.json_part import Part, optional
from suites.suite import Result


def percentile_ms(samples: Sequence[int], percent: float) -> float:
    """Return a percentile of samples in ns, in ms."""
    return float(np.percentile(samples, percent)) / 1e6


class Percentiles:
    """Percentiles in ms of `latency`, which is in ns."""

    latency: tuple[int, ...]

    @property
    def p50_ms(self) -> float:
        return percentile_ms(self.latency, 50)

    @property
    def p99_ms(self) -> float:
        return percentile_ms(self.latency, 99)


@dataclass(frozen=True)
class LimitedTimes(Percentiles, Part):
    """Times of a step at one shape and share, in ns.

    Attributes:
        share: requested share of the compute units (SMs).
        cuda_graph: whether each step replays a CUDA graph.
        latency: host times of a step and its `wait`.
        sustained: host times of a step among steps back to back; each is the mean of several steps.
        steady: whether the warm-up became steady before its time limit.
        units, total: compute units that the device gave, and those that it has; 0 if they are not known.
        built_share: share that the engine was built on; 0 for the whole device.
    """

    batch: int
    sequence: int
    share: float
    cuda_graph: bool
    latency: tuple[int, ...]
    sustained: tuple[int, ...]
    steady: bool
    units: int = optional(0)
    total: int = optional(0)
    built_share: float = optional(0.0)

    @property
    def sequences_per_s(self) -> float:
        return 1e9 * self.batch / statistics.median(self.sustained)


@dataclass(frozen=True)
class ClientTimes(Part):
    """Host times in ns of a step and its `wait`, in one of two clients of a device.

    Attributes:
        client: 1 for the client with the smallest shape, 2 for the one with the largest shape.
        cuda_graph: whether each step replays a CUDA graph.
        alone: times while the other client waits.
        together: times while the other client runs steps too.
        units, total: compute units of the client, and those of the device; 0 if each client may use all.
    """

    client: int
    batch: int
    sequence: int
    cuda_graph: bool
    alone: tuple[int, ...]
    together: tuple[int, ...]
    units: int = optional(0)
    total: int = optional(0)

    @property
    def together_p99_ms(self) -> float:
        return percentile_ms(self.together, 99)

    @property
    def sequences_per_s(self) -> float:
        """Throughput while the other client runs steps too."""
        return 1e9 * self.batch / statistics.fmean(self.together)


@dataclass(frozen=True)
class EngineBuild(Part):
    """Build of an engine.

    Attributes:
        share: of the compute units for the build; 0 for the whole device.
        seconds: wall time of the build, 0 if it failed. Other builds may have left timings for it.
        plan: digest of the engine.
        tactics: tactic of each layer; only during the run.
        layers: number of layers.
        other_tactics: number of layers whose tactic is not that of the engine for the whole device; None if tactics are
            not known.
        outcome, reason: why there is no engine, or no time of it.
    """

    share: float
    seconds: float = optional(0.0)
    plan: str = optional("")
    tactics: tuple[str, ...] = optional(())
    layers: int = optional(0)
    other_tactics: int | None = optional(None)
    outcome: str = optional("")
    reason: str = optional("")


@dataclass(frozen=True)
class FailedShare(Part):
    """Share at which no step of the engine for the whole device could be measured, with the reason."""

    share: float
    outcome: str
    reason: str


ALONE, SLICES, PROCESSES, THREADS = "alone", "time slices", "MPS", "green contexts"
"""How two clients share the device: not at all, by time slices of two processes, two processes under MPS, or two
threads of one process with a green context each."""


@dataclass(frozen=True)
class LoadTimes(Percentiles, Part):
    """Host times in ns of two clients that run at the same time, or of each client alone.

    Attributes:
        sharing: one of the values above; empty if nothing was measured.
        share: of the compute units for client 1, which the other one does not have; 0 without a limit.
        latency: times from the arrivals of the requests of client 1 to the answers.
        steps: times of a step among steps back to back of client 2; each is the mean of a few steps.
        batch: sequences of a step of client 2.
        rejected: requests of client 1 that found a full queue.
        units, total: compute units of client 1, and those of the device; 0 if they are not known.
        outcome, reason: why there are no times.
    """

    sharing: str
    share: float = optional(0.0)
    latency: tuple[int, ...] = optional(())
    steps: tuple[int, ...] = optional(())
    batch: int = optional(0)
    rejected: int = optional(0)
    units: int = optional(0)
    total: int = optional(0)
    outcome: str = optional("")
    reason: str = optional("")

    @property
    def sequences_per_s(self) -> float:
        """Throughput of client 2."""
        return 1e9 * self.batch / statistics.fmean(self.steps)


@dataclass(frozen=True)
class LimitsResult(Result):
    """All shapes at all shares.

    Attributes:
        method: name of a LimitMethod.
        clients: two clients without a limit, and the same two with half of the compute units each; may be empty.
        builds: the engine for the whole device, and one for each share; may be empty.
        loads: two clients with loads, for each kind of sharing; may be empty.
        failures: shares without times, if each share has a process of its own; may be empty.
    """

    method: str
    times: tuple[LimitedTimes, ...]
    clients: tuple[ClientTimes, ...] = optional(())
    builds: tuple[EngineBuild, ...] = optional(())
    loads: tuple[LoadTimes, ...] = optional(())
    failures: tuple[FailedShare, ...] = optional(())

    def at(self, batch: int, sequence: int) -> list[LimitedTimes]:
        """Return the times of a shape in the engine for the whole device, by ascending share; plain steps before CUDA
        graphs."""
        found = [times for times in self.times if (times.batch, times.sequence) == (batch, sequence)]
        whole = [times for times in found if not times.built_share]
        return sorted(whole, key=lambda times: (times.share, times.cuda_graph))

    def engine_pairs(self) -> list[tuple[LimitedTimes, LimitedTimes]]:
        """Return the times of the engine for the whole device, each with those of the engine built on its share."""
        built = {(t.batch, t.sequence, t.share, t.cuda_graph): t for t in self.times if t.built_share}
        whole = [times for batch, sequence in self.shapes for times in self.at(batch, sequence)]
        keys = [(times.batch, times.sequence, times.share, times.cuda_graph) for times in whole]
        return [(times, built[key]) for times, key in zip(whole, keys, strict=True) if key in built]

    def engines_alone(self) -> list[LimitedTimes]:
        """Return the times of engines built on a share at which the engine for the whole device has none."""
        paired = {id(own) for _, own in self.engine_pairs()}
        return [times for times in self.times if times.built_share and id(times) not in paired]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({(times.batch, times.sequence) for times in self.times})

    def pair(self, limited: bool) -> list[ClientTimes]:
        """Return both clients with or without a limit; empty if they were not measured."""
        return sorted((each for each in self.clients if bool(each.units) is limited), key=lambda each: each.client)


RESULT = LimitsResult
