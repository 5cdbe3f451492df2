"""Simulated time for tests of suite=serving: the server's own code runs in it, with sessions of programmed costs."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

import pytest

from backends.base import Array, Feeds
from backends.null_ import null
from backends.null_.null import Costs, NullSession
from suites.serving.arrivals import Arrived
from suites.serving.batch_policy import BatchPolicy
from suites.serving.request_texts import RequestTexts
from suites.serving.serving_loop import Server
from suites.serving.workers import BatchRunner, Finished, OwnThread


@dataclass
class VirtualClock:
    """Clock that only waits, programmed costs and its own readings advance.

    Attributes:
        reading_ns: time of each reading, as a substitute for the time of Python's code.
    """

    time: int = 0
    reading_ns: int = 0

    def now(self) -> int:
        self.time += self.reading_ns
        return self.time

    def wait_until(self, at: int) -> None:
        self.time = max(self.time, at)

    def spend(self, milliseconds: float) -> None:
        self.time += round(milliseconds * 1e6)


@dataclass
class VirtualPool:
    """Workers that run at the same simulated time."""

    count: int
    runner: BatchRunner
    clock: VirtualClock
    _running: list[tuple[int, int, list[Finished]]] = field(default_factory=list)
    _order: count[int] = field(default_factory=count)

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> int:
        return self.count - self.busy

    def submit(self, batch: Sequence[Arrived]) -> None:
        before = self.clock.time
        finished = self.runner.run(batch)
        heapq.heappush(self._running, (self.clock.time, next(self._order), finished))
        self.clock.time = before

    def wait(self, until: int | None) -> list[Finished]:
        if self._running and (until is None or self._running[0][0] <= until):
            end, _, finished = heapq.heappop(self._running)
            self.clock.wait_until(end)
            return finished
        assert until is not None
        self.clock.wait_until(until)
        return []


class ProgrammedSession(NullSession):
    """Null session that stalls, or fails, at given requests. It spends its times and computes nothing.

    Attributes:
        stalls: extra ms by number of the call.
        fails: whether a pass over these feeds raises an error.
    """

    def __init__(self, costs: Costs, stalls: Mapping[int, float], fails: Callable[[Feeds], bool]) -> None:
        super().__init__("ok", costs)
        self._stalls, self._fails, self._calls = stalls, fails, 0

    def answer(self, feeds: Feeds) -> Array:
        self._calls += 1
        null._spend(self._stalls.get(self._calls, 0.0))
        if self._fails(feeds):
            raise RuntimeError("no kernel for this input\nmore")
        self._null_stream.spend(self._costs.step_ms)
        return self._output


LENGTHS = (8, 16, 24, 32)


def some_texts(lengths: Sequence[int] = LENGTHS) -> RequestTexts:
    """Return texts of these numbers of tokens. The ids of a text are its number plus ten."""
    return RequestTexts.of(
        [[10 + number] * length for number, length in enumerate(lengths)], 0, ("input_ids", "attention_mask")
    )


@dataclass
class Programmed:
    """A server in simulated time.

    Attributes:
        step_ms: service time of a batch.
        workers: number of workers.
    """

    step_ms: float = 1.0
    policy: BatchPolicy = field(default_factory=BatchPolicy)
    workers: int = 1
    reading_ns: int = 0
    texts: RequestTexts = field(default_factory=some_texts)
    stalls: Mapping[int, float] = field(default_factory=dict)
    fails: Callable[[Feeds], bool] = lambda feeds: False

    def server(self, monkeypatch: pytest.MonkeyPatch) -> Server:
        clock = VirtualClock(reading_ns=self.reading_ns)
        monkeypatch.setattr(null, "_spend", clock.spend)
        session = ProgrammedSession(Costs(step_ms=self.step_ms), self.stalls, self.fails)
        runner = BatchRunner(session, clock, self.texts, self.policy)
        workers = OwnThread(runner) if self.workers == 1 else VirtualPool(self.workers, runner, clock)
        return Server(workers, clock, self.texts, self.policy)
