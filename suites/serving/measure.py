"""Measurement for suite=serving: requests arrive at a session under several loads.

Runs in the measuring worker, over any session. With one worker, load, queue and session share one thread; with more,
each has its own thread and session. See suites/serving/serving_loop.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from backends.base import Array, Session
from suites.measuring.clock import Effort, HostClock
from suites.measuring.cpu_load import cpu_load, read_cpu
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.serving.arrivals import MOST_ARRIVALS, ClosedLoop, OpenLoop, bursts, poisson
from suites.serving.load_point import OfferedLoad, load_point, times_of
from suites.serving.load_search import ServedLoads, find_highest
from suites.serving.preparation import Preparation, prepare
from suites.serving.process_runner import process_pool, serve_batches
from suites.serving.request_texts import RequestTexts
from suites.serving.result import OFFERED, SATURATED, SEARCH, HighestLoad, LoadPoint, ServingResult
from suites.serving.serving_loop import Server
from suites.serving.suite import ServingQuestion
from suites.serving.worker_pool import thread_pool
from suites.serving.workers import BatchRunner, OwnThread, Workers
from suites.suite import Question

LIGHTEST, HEAVIEST = 0.05, 1.1
"""Ends of the search for the highest load, as shares of the highest throughput."""


@dataclass
class ServingMeasurement:
    """Measures the loads of a question on one server.

    Attributes:
        reads_cpu: whether to read which share of the CPU time other processes take. Workers in processes would count as
            others.
    """

    server: Server
    question: ServingQuestion
    effort: Effort
    progress: Callable[[str], None]
    reads_cpu: bool = True
    points: list[LoadPoint] = field(default_factory=list)
    service: dict[int, list[int]] = field(default_factory=dict)

    def run(self) -> ServingResult:
        """Measure all loads."""
        self._warm_up()
        question, highest = self.question, list[HighestLoad]()
        if question.trace:
            self._trace()
        elif question.clients:
            for clients in question.clients:
                self.closed(clients, self.effort.seconds, OFFERED)
        else:
            capacity = self._saturated(self.effort.seconds, SATURATED).achieved
            for rate in question.loads or [share * capacity for share in question.shares if capacity]:
                self.open(rate, OFFERED)
            if capacity:
                highest = [self._highest(index, capacity) for index in range(len(question.bounds))]
        service = {str(size): times_of(times) for size, times in sorted(self.service.items())}
        return ServingResult(tuple(self.points), tuple(highest), service)

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
        self.service.clear()

    def _saturated(self, seconds: float, purpose: str) -> LoadPoint:
        """Serve so many clients that the next batch is always complete: the highest throughput of this server."""
        clients = (self.question.workers + 1) * self.server.policy.most_requests
        return self.closed(clients, seconds, purpose)

    def _trace(self) -> None:
        self.progress("the trace")
        trace = self.question.trace
        times = np.asarray([at for at, _ in trace], np.int64)
        by_length = {length: text for text, length in enumerate(self.question.trace_lengths)}
        drawn = self._texts(len(trace))
        texts = [by_length[tokens] if tokens else int(drawn[row]) for row, (_, tokens) in enumerate(trace)]
        seconds = int(times[-1]) / 1e9
        rate = len(trace) / seconds if seconds else 0.0
        self._serve(OpenLoop(times, np.asarray(texts)), OfferedLoad(OFFERED, rate, 0, seconds))

    def _highest(self, index: int, capacity: float) -> HighestLoad:
        """Search the highest load within a bound, from the loads that were served before."""
        bound = self.question.bounds[index]
        least = bound.percentile / 100

        def served() -> ServedLoads:
            return ServedLoads.of(self.points, index, least)

        def within(rate: float) -> bool:
            while rate not in (known := served().known):
                self.open(rate, SEARCH)
            return known[rate]

        while (unclear := served().next_unclear) is not None:
            self.open(unclear, SEARCH)
        found = find_highest(within, LIGHTEST * capacity, HEAVIEST * capacity, bound, served().known)
        return replace(found, tried=len({point.offered for point in self.points if point.offered}))

    def _texts(self, count: int) -> Array:
        """Draw the texts of requests, int [count]."""
        generator = np.random.default_rng([self.question.seed, len(self.points), 1])
        return generator.integers(0, len(self.server.texts.lengths), count)

    def _serve(self, load: OpenLoop | ClosedLoop, offered: OfferedLoad) -> LoadPoint:
        before = read_cpu() if self.reads_cpu else None
        served = self.server.serve(load)
        cpu = cpu_load(before, read_cpu()) if self.reads_cpu else None
        for size, times in served.service.items():
            self.service.setdefault(size, []).extend(times)
        point = load_point(served, offered, self.question.bounds)
        if cpu is not None:
            point = replace(
                point, cpu_others=cpu.cpu_others, cpu_steal=cpu.cpu_steal, cpu_resolution=cpu.cpu_resolution
            )
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
        run.progress("preparing batches")
        preparation = Preparation(texts, policy, built, question.graph, run.effort.warm_up_s)
        preparation.prepare(session, clock)
        return BatchRunner(session, clock, texts, policy, built)

    def measured(workers: Workers) -> ServingResult:
        server, alone = Server(workers, clock, texts, policy), question.workers == 1 or question.pool == "threads"
        return ServingMeasurement(server, question, run.effort, run.progress, alone).run()

    if question.socket:
        with run.session(steps) as session:
            serve_batches(question.socket, runner(session))
        return Measured(facts=Facts().opened(steps))

    def start(socket: str) -> None:
        run.again(replace(question, socket=socket), ())

    with run.session(steps) as session:
        checks = [check_batch(session, run, graph) for graph in ((False, True) if question.graph else (False,))]
        if question.workers == 1:
            result = measured(OwnThread(runner(session)))
    if question.workers > 1:
        run.progress(f"opening {question.workers} sessions")
        count, processes = question.workers, question.pool == "processes"
        with process_pool(count, start) if processes else thread_pool(count, run.opening, runner) as pool:
            result = measured(pool)
    failures = {
        f"{point.offered:.4g} requests/s" if point.offered else f"{point.clients} clients": point.first_error
        for point in result.points
        if point.errors and not point.answered
    }
    return Measured(checks=tuple(checks), facts=Facts().opened(steps), failures=failures, result=result)


def check_batch(session: Session, run: MeasureRun, graph: bool) -> Check:
    """Compare the output of one batch of requests with FP32, without or with a CUDA graph."""
    run.progress("comparing")
    feeds = {name.partition("/")[2]: array for name, array in run.arrays.items() if name.startswith("check/")}
    reference, rows = feeds.pop("reference"), feeds.pop("rows")
    batch, sequence = feeds["input_ids"].shape
    if graph:
        session.keeps_graphs = True
        prepare(session, feeds, graph)
    difference = compare_with_reference(session.answer(feeds), reference, rows, feeds["attention_mask"])
    return Check.of(difference, (batch, sequence), graph)
