"""A Triton server under the loads of suite=serving: each request is sent when it arrives, and Triton batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backends.base import Array
from suites.measuring.clock import Clock
from suites.serving.arrivals import Arrived, Load
from suites.serving.finished_queue import FinishedQueue
from suites.serving.serving_loop import Served, Server
from suites.serving.workers import Finished
from suites.tritonserver.answers import AnswerCheck
from suites.tritonserver.client import TritonClient

FULL = "maximum queue size"
"""Part of Triton's message for a request that finds a full queue."""

POLL_NS = 1_000_000_000
"""Time after which a wait checks whether the server still runs."""


@dataclass
class RemoteWorkers:
    """Requests in flight, as workers of a server: each has one request.

    Attributes:
        alive: raises an error if the server has ended.
        rejected: requests that found a full queue.
        first_error: first other error in one line.
    """

    client: TritonClient
    clock: Clock
    answers: AnswerCheck
    alive: Callable[[], None]
    rejected: int = 0
    first_error: str = ""
    busy: int = 0
    _finished: FinishedQueue[Finished] = field(default_factory=FinishedQueue)

    @property
    def idle(self) -> int:
        return self.client.most - self.busy

    def submit(self, batch: Sequence[Arrived]) -> None:
        self.busy += 1
        (request,) = batch
        begin, tokens = self.clock.now(), self.client.texts.lengths[request.text]

        def done(end: int, answer: Array | None, error: str) -> None:
            if answer is not None:
                self.answers.add(request.text, answer)
            self._finished.put(Finished(batch, begin, begin, end, tokens, error))

        self.client.send(request.text, done)

    def wait(self, until: int | None) -> list[Finished]:
        finished = self._finished.take(0)
        while not finished:
            left = POLL_NS if until is None else min(POLL_NS, until - self.clock.now())
            if left <= 0:
                return []
            finished = self._finished.take(left / 1e9)
            if not finished:
                self.alive()
        self.busy -= len(finished)
        for done in finished:
            if done.error and FULL in done.error:
                self.rejected += 1
            elif done.error:
                self.first_error = self.first_error or done.error
                self.alive()
        return finished


@dataclass
class RemoteServer(Server):
    """Server whose queue and batcher are those of Triton. The requests that Triton rejected count as rejected."""

    def serve(self, load: Load) -> Served:
        """Serve a load to its end."""
        workers = self.workers
        assert isinstance(workers, RemoteWorkers)
        workers.rejected, workers.first_error = 0, ""
        served = super().serve(load)
        served.rejected += workers.rejected
        served.errors, served.first_error = served.errors - workers.rejected, workers.first_error
        return served
