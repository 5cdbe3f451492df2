"""Measurement for suite=serving: requests arrive at a session under several loads.

Runs in the measuring worker, over any session. With one worker, load, queue and session share one thread; with more,
each has its own thread and session. See suites/serving/serving_loop.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from backends.base import Array, Session
from suites.measuring.clock import Effort, HostClock
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.serving.arrivals import MOST_ARRIVALS, ClosedLoop, OpenLoop, bursts, poisson
from suites.serving.load_point import OfferedLoad, load_point
from suites.serving.load_search import find_highest
from suites.serving.request_texts import RequestTexts
from suites.serving.result import OFFERED, SATURATED, SEARCH, HighestLoad, LoadPoint, ServingResult
from suites.serving.serving_loop import Server
from suites.serving.suite import ServingQuestion
from suites.serving.workers import BatchRunner, OwnThread, ThreadPool, Workers
from suites.suite import Question

SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Offered loads as shares of the highest throughput."""

LIGHTEST, HEAVIEST = 0.05, 1.1
"""Ends of the search for the highest load, as shares of the highest throughput."""


@dataclass
class ServingMeasurement:
    """Measures the loads of a question on one server."""

    server: Server
    question: ServingQuestion
    effort: Effort
    progress: Callable[[str], None]
    points: list[LoadPoint] = field(default_factory=list)

    def run(self) -> ServingResult:
        """Measure all loads."""
        self._warm_up()
        question, highest = self.question, None
        if question.trace:
            self._trace()
        elif question.clients:
            for clients in question.clients:
                self.closed(clients, self.effort.seconds, OFFERED)
        else:
            capacity = self._saturated(self.effort.seconds, SATURATED).achieved
            for rate in question.loads or [share * capacity for share in SHARES if capacity]:
                self.open(rate, OFFERED)
            if question.bound and capacity:
                highest = self._highest(capacity)
        return ServingResult(tuple(self.points), highest)

    def open(self, rate: float, purpose: str) -> LoadPoint:
        """Offer `rate` requests per second for the seconds of the effort, and fewer above MOST_ARRIVALS requests."""
        self.progress(f"{rate:.4g} requests/s")
        seconds = min(self.effort.seconds, MOST_ARRIVALS / rate)
        seed = [self.question.seed, len(self.points)]
        if self.question.burst > 1:
            times = bursts(rate, seconds, self.question.burst, seed)
        else:
            times = poisson(rate, seconds, seed)
        return self._serve(OpenLoop(times, self._texts(len(times))), OfferedLoad(purpose, rate, 0, seconds))

    def closed(self, clients: int, seconds: float, purpose: str) -> LoadPoint:
        """Serve clients that each wait for the answer to the last request."""
        self.progress(f"{clients} client{'' if clients == 1 else 's'}")
        return self._serve(
            ClosedLoop(clients, seconds, self._texts(1 << 16)), OfferedLoad(purpose, 0.0, clients, seconds)
        )

    def _warm_up(self) -> None:
        """Serve single requests for half of the time, and full batches for the other half."""
        self.closed(1, self.effort.warm_up_s / 2, SATURATED)
        self._saturated(self.effort.warm_up_s / 2, SATURATED)
        self.points.clear()

    def _saturated(self, seconds: float, purpose: str) -> LoadPoint:
        """Serve so many clients that the next batch is always complete: the highest throughput of this server."""
        clients = (self.question.workers + 1) * self.server.policy.most_requests
        return self.closed(clients, seconds, purpose)

    def _trace(self) -> None:
        self.progress("the trace")
        trace = self.question.trace
        times = np.asarray([at for at, _ in trace], np.int64)
        by_length = {length: text for text, length in enumerate(self.server.texts.lengths)}
        drawn = self._texts(len(trace))
        texts = [by_length[tokens] if tokens else int(drawn[row]) for row, (_, tokens) in enumerate(trace)]
        seconds = int(times[-1]) / 1e9
        rate = len(trace) / seconds if seconds else 0.0
        self._serve(OpenLoop(times, np.asarray(texts)), OfferedLoad(OFFERED, rate, 0, seconds))

    def _highest(self, capacity: float) -> HighestLoad:
        bound = self.question.bound
        assert bound is not None
        share = bound.percentile / 100

        def is_within(rate: float) -> bool:
            return (self.open(rate, SEARCH).within or 0.0) >= share

        return find_highest(is_within, LIGHTEST * capacity, HEAVIEST * capacity, bound)

    def _texts(self, count: int) -> Array:
        """Draw the texts of requests, int [count]."""
        generator = np.random.default_rng([self.question.seed, len(self.points), 1])
        return generator.integers(0, len(self.server.texts.lengths), count)

    def _serve(self, load: OpenLoop | ClosedLoop, offered: OfferedLoad) -> LoadPoint:
        point = load_point(self.server.serve(load), offered, self.question.bound)
        self.points.append(point)
        return point


def measure(run: MeasureRun, question: Question) -> Measured:
    """Compare a batch with FP32, then measure all loads.

    Args:
        run: its arrays are in the format of suites/serving/inputs.py.
        question: a ServingQuestion.

    Returns:
        The result is a ServingResult. A load without any answer is named in `failures`.
    """
    question, steps = cast(ServingQuestion, question), dict[str, int]()
    texts, clock, policy = RequestTexts.read(run.arrays), HostClock(), question.policy
    built = run.shapes if policy.pads_to_built else ()

    def runner(session: Session) -> BatchRunner:
        return BatchRunner(session, clock, texts, built)

    def measured(workers: Workers) -> ServingResult:
        server = Server(workers, clock, texts, policy)
        return ServingMeasurement(server, question, run.effort, run.progress).run()

    with run.session(steps) as session:
        check = check_batch(session, run)
        if question.workers == 1:
            result = measured(OwnThread(runner(session)))
    if question.workers > 1:
        run.progress(f"opening {question.workers} sessions")
        with ThreadPool(question.workers, run.opening, runner) as pool:
            result = measured(pool)
    failures = {
        f"{point.offered:.4g} requests/s" if point.offered else f"{point.clients} clients": point.first_error
        for point in result.points
        if point.errors and not point.answered
    }
    return Measured(checks=(check,), facts=Facts().opened(steps), failures=failures, result=result)


def check_batch(session: Session, run: MeasureRun) -> Check:
    """Compare the output of one batch of requests with FP32."""
    run.progress("comparing")
    feeds = {name.partition("/")[2]: array for name, array in run.arrays.items() if name.startswith("check/")}
    reference, rows = feeds.pop("reference"), feeds.pop("rows")
    batch, sequence = feeds["input_ids"].shape
    difference = compare_with_reference(session.answer(feeds), reference, rows, feeds["attention_mask"])
    return Check.of(difference, (batch, sequence), cuda_graph=False)
