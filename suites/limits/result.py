"""Result of suite=limits: times of a step on shares of the compute units, and of two clients of one device."""

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


@dataclass(frozen=True)
class LimitedTimes(Part):
    """Times of a step at one shape and share, in ns.

    Attributes:
        share: requested share of the compute units (SMs).
        cuda_graph: whether each step replays a CUDA graph.
        latency: host times of a step and its `wait`.
        sustained: host times of a step among steps back to back; each is the mean of several steps.
        steady: whether the warm-up became steady before its time limit.
        units, total: compute units that the device gave, and those that it has; 0 if they are not known.
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

    @property
    def p50_ms(self) -> float:
        return percentile_ms(self.latency, 50)

    @property
    def p99_ms(self) -> float:
        return percentile_ms(self.latency, 99)

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
class LimitsResult(Result):
    """All shapes at all shares.

    Attributes:
        method: name of a LimitMethod.
        clients: two clients without a limit, and the same two with half of the compute units each; may be empty.
    """

    method: str
    times: tuple[LimitedTimes, ...]
    clients: tuple[ClientTimes, ...] = optional(())

    def at(self, batch: int, sequence: int) -> list[LimitedTimes]:
        """Return the times of a shape, by ascending share; plain steps before CUDA graphs."""
        found = [times for times in self.times if (times.batch, times.sequence) == (batch, sequence)]
        return sorted(found, key=lambda times: (times.share, times.cuda_graph))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({(times.batch, times.sequence) for times in self.times})

    def pair(self, limited: bool) -> list[ClientTimes]:
        """Return both clients with or without a limit; empty if they were not measured."""
        return sorted((each for each in self.clients if bool(each.units) is limited), key=lambda each: each.client)


RESULT = LimitsResult
