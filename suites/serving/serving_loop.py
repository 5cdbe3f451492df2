"""A server: it takes batches from the queue, gives them to workers, and notes the times of all requests.

Load and queue have no threads of their own. All times are those of one clock, so the same code runs in simulated time.
The latency of a request begins at its scheduled arrival, also if the server was busy then (no coordinated omission).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from suites.measuring.clock import Clock
from suites.serving.arrivals import Load
from suites.serving.batch_policy import BatchPolicy
from suites.serving.request_queue import RequestQueue
from suites.serving.request_texts import RequestTexts
from suites.serving.workers import Finished, Workers


@dataclass
class Served:
    """Everything that was counted under one load. Times are in ns.

    Attributes:
        start, end: of the load, and of the last answer.
        latencies: of answered requests, from the scheduled arrival to the answer.
        queue_times: of the same requests, from the scheduled arrival to the start of the batch.
        late: for each request that the server waited for, the time from its scheduled arrival until it was noticed.
        batches: number of batches by their number of requests.
        tokens, padded_tokens: of all batches, without padding and with it.
        in_session: time in sessions, of all workers.
        dispatch, assembly: time in Python, to admit requests and choose batches, and to arrange batches as arrays.
        sent, rejected, too_long: number of requests.
        errors: number of requests whose pass raised an error, alone too.
        first_error: the first such error in one line.
        replayed: number of batches that replayed a CUDA graph.
        tokenizing: time of the tokenizer, of all workers.
        service: times of batches in a worker, by their number of requests: from the start to the answer.
    """

    start: int = 0
    end: int = 0
    latencies: list[int] = field(default_factory=list)
    queue_times: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)
    batches: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    padded_tokens: int = 0
    in_session: int = 0
    dispatch: int = 0
    assembly: int = 0
    sent: int = 0
    rejected: int = 0
    too_long: int = 0
    errors: int = 0
    first_error: str = ""
    replayed: int = 0
    tokenizing: int = 0
    service: dict[int, list[int]] = field(default_factory=dict)


@dataclass
class Server:
    """Workers with the rules of their batches."""

    workers: Workers
    clock: Clock
    texts: RequestTexts
    policy: BatchPolicy

    def serve(self, load: Load) -> Served:
        """Serve a load to its end."""
        served = Served()
        queue = RequestQueue(load, self.policy, self.texts.lengths)
        served.start = served.end = now = self.clock.now()
        load.start(now)
        expected: int | None = None
        while True:
            sent = queue.sent
            queue.admit(now)
            if expected is not None and queue.sent > sent:
                served.late.append(now - expected)
            while self.workers.idle and (batch := queue.take(now)):
                served.dispatch += self.clock.now() - now
                self.workers.submit(batch)
                now = self.clock.now()
            # Nothing can be done before an answer if no worker is idle.
            event = queue.next_event() if self.workers.idle else None
            expected = queue.next_arrival() if event is not None else None
            if event is None and not self.workers.busy:
                break
            served.dispatch += self.clock.now() - now
            finished = self.workers.wait(event)
            now = self.clock.now()
            if finished:
                expected = None
                self._note(finished, served, load)
        served.sent, served.rejected, served.too_long = queue.sent, queue.rejected, queue.too_long
        return served

    def _note(self, finished: Iterable[Finished], served: Served, load: Load) -> None:
        for done in finished:
            count = len(done.batch)
            served.end = max(served.end, done.end)
            served.tokenizing += done.tokenizing
            served.assembly += done.ready - done.begin - done.tokenizing
            if done.error:
                served.errors, served.first_error = served.errors + count, served.first_error or done.error
            else:
                served.in_session += done.end - done.ready
                served.batches[count] += 1
                served.service.setdefault(count, []).append(done.end - done.begin)
                served.replayed += done.replayed
                served.tokens += sum(self.texts.lengths[request.text] for request in done.batch)
                served.padded_tokens += done.computed
                served.latencies += [done.end - request.at for request in done.batch]
                served.queue_times += [done.begin - request.at for request in done.batch]
            load.completed(count, done.end)
