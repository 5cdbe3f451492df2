"""A server: it takes batches from the queue, runs them in a session, and notes the times of all requests.

Load, queue and session share one thread and one clock, so the same code runs in simulated time. The latency of a
request begins at its scheduled arrival, also if the server was busy then (no coordinated omission).
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from backends.base import Session, Shape
from suites.measuring.clock import Clock
from suites.schema.refusals import first_line
from suites.serving.arrivals import Arrived, Load
from suites.serving.request_queue import BatchPolicy, RequestQueue
from suites.serving.request_texts import RequestTexts


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
        in_session: time in the session.
        dispatch, assembly: time in Python, to admit requests and choose batches, and to arrange batches as arrays.
        sent, rejected, too_long: number of requests.
        errors: number of requests whose pass raised an error, alone too.
        first_error: the first such error in one line.
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


@dataclass
class Server:
    """A session with the rules of its batches.

    Attributes:
        built: the shapes that the session is built for.
    """

    session: Session
    clock: Clock
    texts: RequestTexts
    policy: BatchPolicy
    built: Sequence[Shape] = ()

    def serve(self, load: Load) -> Served:
        """Serve a load to its end."""
        served = Served()
        queue = RequestQueue(load, self.policy, self.texts.lengths)
        served.start = served.end = self.clock.now()
        load.start(served.start)
        while batch := self._next_batch(queue, served):
            self._run(batch, served)
            load.completed(len(batch), served.end)
        served.sent, served.rejected, served.too_long = queue.sent, queue.rejected, queue.too_long
        return served

    def _next_batch(self, queue: RequestQueue, served: Served) -> list[Arrived]:
        """Wait for the next batch and return it; empty if the load has ended."""
        arrival: int | None = None
        while True:
            now = self.clock.now()
            sent = queue.sent
            queue.admit(now)
            if arrival is not None and queue.sent > sent:
                served.late.append(now - arrival)
            batch = queue.take(now)
            event, arrival = queue.next_event(), queue.next_arrival()
            served.dispatch += self.clock.now() - now
            if batch or event is None:
                return batch
            self.clock.wait_until(event)

    def _run(self, batch: Sequence[Arrived], served: Served) -> None:
        """Run a batch. If its pass raises an error, run each of its requests alone, so that one cannot fail others."""
        begin = self.clock.now()
        texts = [request.text for request in batch]
        shape = self.texts.shape(texts, self.built if self.policy.pads_to_built else ())
        feeds = self.texts.feeds(texts, shape)
        ready = self.clock.now()
        served.assembly += ready - begin
        try:
            self.session.answer(feeds)
        except Exception as error:  # Vendors' errors have no common type.
            served.end = self.clock.now()
            if len(batch) > 1:
                for request in batch:
                    self._run([request], served)
                return
            if not served.errors:
                traceback.print_exc()
            served.errors, served.first_error = served.errors + 1, served.first_error or first_line(error)
            return
        served.end = self.clock.now()
        served.in_session += served.end - ready
        served.batches[len(batch)] += 1
        served.tokens += sum(self.texts.lengths[text] for text in texts)
        served.padded_tokens += shape.batch * shape.sequence
        served.latencies += [served.end - request.at for request in batch]
        served.queue_times += [begin - request.at for request in batch]
