"""One process of a measurement of two clients with loads: one client, or both in two threads with green contexts.

Client 1 sends single requests of the smallest shape. Client 2 runs steps of the largest shape back to back. The latency
of a request begins at its scheduled arrival, also if the client was busy then (see suites/serving/serving_loop.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np

from backends.base import Feeds, Session, Unsupported
from backends.compute_share import ComputeShare, limited_to
from suites.latency.measure import inputs_of
from suites.limits.client_meeting import others_at
from suites.limits.clients import MOST_SAMPLES, Meeting, in_two_threads, prepared, shapes_of_clients
from suites.limits.result import THREADS, LoadTimes
from suites.limits.suite import BOTH, LATENCY, THROUGHPUT, LimitsQuestion, LoadClient, LoadPlan
from suites.measuring import clock
from suites.measuring.clock import Clock, HostClock
from suites.measuring.measure_run import MeasureRun
from suites.serving.arrivals import MOST_ARRIVALS, Arrived, ClosedLoop, OpenLoop, poisson
from suites.serving.batch_policy import BatchPolicy
from suites.serving.preparation import prepare
from suites.serving.request_texts import RequestTexts
from suites.serving.serving_loop import Served, Server
from suites.serving.workers import Finished, OwnThread

IN_FLIGHT = 4
"""Steps of client 2 between two waits for the device."""

WHOLE = ComputeShare(0, 0)

Work = Callable[[], LoadTimes]
"""Runs the load of one client once."""


@dataclass(frozen=True)
class FixedBatch:
    """Runner of requests that all have the same inputs."""

    session: Session
    feeds: Feeds
    clock: Clock = field(default_factory=HostClock)

    def run(self, batch: Sequence[Arrived]) -> list[Finished]:
        begin = self.clock.now()
        self.session.answer(self.feeds)
        return [Finished(batch, begin, begin, self.clock.now(), computed=0, replayed=self.session.replays)]


def measure_client(run: MeasureRun, question: LimitsQuestion) -> tuple[LoadTimes, ...]:
    """Return the times of each phase: of this client only, or, for BOTH, of both clients.

    Raises:
        Unavailable: the device cannot be divided, or there is no daemon of MPS.
        RuntimeError: the other client has ended.
    """
    client, plan = question.client, question.loads
    assert client is not None
    assert plan is not None
    if client.number == BOTH:
        return _in_threads(run, plan, client.share)
    limit = run.limit_process(client.share) if client.share else nullcontext(WHOLE)
    with limit as given, run.session({}) as session:
        work = _load(session, run, plan, client.number)
        with others_at(client.socket) as arrive:
            found = tuple(_phases(client, work, arrive))
    return tuple(replace(times, units=given.units, total=given.total) for times in found)


def _in_threads(run: MeasureRun, plan: LoadPlan, share: float) -> tuple[LoadTimes, ...]:
    """Run both clients in this process, each on its own part of the device."""
    parts = run.divide((share, 1 - share))

    def client(number: int, meeting: Meeting) -> LoadTimes:
        own = LoadClient(number + 1, share)
        with limited_to(parts[number]), ExitStack() as stack:
            with meeting.opening:
                work = _load(stack.enter_context(run.session({})), run, plan, own.number)
            (times,) = _phases(own, work, lambda: meeting.barrier.wait())  # noqa: PLW0108  its result is not used
        return times

    first, second = in_two_threads(client)
    return (merged(first, replace(second, sharing=THREADS, units=parts[0].units, total=parts[0].total), share),)


def merged(first: LoadTimes, second: LoadTimes, share: float) -> LoadTimes:
    """Return the times of both clients, with the latency of the first one and all else of the second one."""
    return replace(second, share=share, latency=first.latency, rejected=first.rejected)


def _phases(client: LoadClient, work: Work, arrive: Callable[[], object]) -> Iterator[LoadTimes]:
    """Yield the times of this client alone, if they are measured, and together with the other one."""
    for turn in (LATENCY, THROUGHPUT) if client.alone else ():
        arrive()
        if turn == client.number:
            yield work()
    arrive()
    yield work()
    arrive()


def _load(session: Session, run: MeasureRun, plan: LoadPlan, number: int) -> Work:
    """Prepare the session of a client and return its load."""
    shape = shapes_of_clients(run)[number - 1]
    if number == THROUGHPUT:
        prepared(session, shape, run)
        return lambda: LoadTimes("", steps=_back_to_back(session, run, plan), batch=shape.batch)
    feeds = inputs_of(run.arrays, shape)[0]
    _prepare_requests(session, feeds, run.cuda_graph)
    _serve(session, feeds, ClosedLoop(1, run.effort.warm_up_s, np.zeros(1, np.int64)))

    def work() -> LoadTimes:
        served = _serve(session, feeds, _requests(plan))
        return LoadTimes("", latency=tuple(served.latencies), rejected=served.rejected)

    return work


def _prepare_requests(session: Session, feeds: Feeds, graph: bool) -> None:
    """Run the first steps, and capture a CUDA graph if the session can."""
    session.keeps_graphs = graph
    try:
        prepare(session, feeds, graph)
    except Unsupported:
        session.keeps_graphs = False
    session.answer(feeds)  # the first request after a capture captures the copies too


def _requests(plan: LoadPlan) -> OpenLoop | ClosedLoop:
    if not plan.rate:
        return ClosedLoop(1, plan.seconds, np.zeros(1, np.int64))
    times = poisson(plan.rate, min(plan.seconds, MOST_ARRIVALS / plan.rate), [plan.seed])
    return OpenLoop(times, np.zeros(len(times), np.int64))


def _serve(session: Session, feeds: Feeds, load: OpenLoop | ClosedLoop) -> Served:
    runner, text = FixedBatch(session, feeds), RequestTexts.of([[0]], 0, ())
    return Server(OwnThread(runner), runner.clock, text, BatchPolicy()).serve(load)


def _back_to_back(session: Session, run: MeasureRun, plan: LoadPlan) -> tuple[int, ...]:
    """Return the time of a step in ns, for each few steps back to back."""

    def steps() -> None:
        for _ in range(IN_FLIGHT):
            session.step()
        session.wait()

    effort = replace(run.effort, seconds=plan.seconds, min_samples=1, max_samples=MOST_SAMPLES)
    return clock.sampled(lambda: [clock.time_once(steps) // IN_FLIGHT], effort).values
