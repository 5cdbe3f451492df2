"""Replicas of a measured server in simulated time.

The queue and the rules of batches are those of the measured server. All replicas take batches from one queue, and a
batch takes a random time of the measured ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from suites.serving.arrivals import Arrived, OpenLoop, poisson
from suites.serving.batch_policy import BatchPolicy
from suites.serving.request_texts import RequestTexts
from suites.serving.service_times import ServiceTimes
from suites.serving.serving_loop import Served, Server
from suites.serving.workers import Finished


@dataclass
class SimulatedClock:
    """Clock that only waits advance."""

    time: int = 0

    def now(self) -> int:
        return self.time

    def wait_until(self, at: int) -> None:
        self.time = max(self.time, at)


@dataclass
class SimulatedWorkers:
    """Workers that run batches at the same simulated time."""

    number: int
    clock: SimulatedClock
    service: ServiceTimes
    random: np.random.Generator
    _running: list[tuple[int, int, Finished]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> int:
        return self.number - self.busy

    def submit(self, batch: Sequence[Arrived]) -> None:
        begin = self.clock.time
        end = begin + self.service.time(len(batch), self.random.random())
        heapq.heappush(self._running, (end, next(self._order), Finished(batch, begin, begin, end, 0)))

    def wait(self, until: int | None) -> list[Finished]:
        if self._running and (until is None or self._running[0][0] <= until):
            end, _, finished = heapq.heappop(self._running)
            self.clock.wait_until(end)
            return [finished]
        assert until is not None
        self.clock.wait_until(until)
        return []


@dataclass(frozen=True)
class SimulatedServer:
    """Replicas of a server.

    Attributes:
        policy: rules of batches. Its queue is that of one replica.
        service: times of a batch in one worker.
        workers: number of workers of a replica.
        tokens: number of tokens of each request.
    """

    policy: BatchPolicy
    service: ServiceTimes
    workers: int = 1
    tokens: int = 2

    def serve(self, rate: float, requests: int, replicas: int, seed: int) -> Served:
        """Serve about this number of requests, which arrive at random times.

        Args:
            rate: requests per second, of all replicas together.
        """
        clock, texts = SimulatedClock(), RequestTexts.of([[0] * self.tokens], 0, ())
        random = np.random.default_rng([seed, 1])
        workers = SimulatedWorkers(replicas * self.workers, clock, self.service, random)
        times = poisson(rate, requests / rate, [seed])
        server = Server(workers, clock, texts, replace(self.policy, queue=self.policy.queue * replicas))
        return server.serve(OpenLoop(times, np.zeros(len(times), np.int64)))
