"""Two clients of one device: sessions of the same engine in two threads, alone and together.

Client 1 runs the smallest shape, as a client that needs a short latency. Client 2 runs the largest shape, as a client
that needs throughput. With one shape they are equal. Each client waits for a step before it starts the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from threading import Barrier, BrokenBarrierError, Lock
from typing import TypeVar

from backends.base import Session, Shape, Unsupported
from backends.compute_share import ComputeShare, limited_to
from suites.latency.measure import inputs_of
from suites.limits.result import ClientTimes
from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun

T = TypeVar("T")

COUNT = 2

MOST_SAMPLES = 1_000_000
"""Most samples of a phase in which both clients run: so many that both end after the same time."""


@dataclass(frozen=True)
class Meeting:
    """Points at which both clients wait for each other.

    Attributes:
        barrier: start and end of each phase.
        opening: only one client opens and captures at a time.
    """

    barrier: Barrier = field(default_factory=lambda: Barrier(COUNT))
    opening: Lock = field(default_factory=Lock)


def measure_clients(run: MeasureRun) -> tuple[ClientTimes, ...]:
    """Measure two clients without a limit, then with half of the compute units each.

    Raises:
        Unavailable: the device cannot be divided.
    """
    found: list[ClientTimes] = []
    limits: tuple[Sequence[ComputeShare | None], ...] = ((None,) * COUNT, run.divide((1 / COUNT,) * COUNT))
    for parts in limits:
        run.progress("two clients" if parts[0] is None else "two clients, limited")
        found += _measure_pair(run, parts)
    return tuple(found)


def shapes_of_clients(run: MeasureRun) -> tuple[Shape, Shape]:
    """Return the shape of the client that needs a short latency, and of the one that needs throughput."""
    ascending = sorted(run.shapes, key=lambda shape: (shape.batch * shape.sequence, shape))
    return ascending[0], ascending[-1]


def in_two_threads(client: Callable[[int, Meeting], T]) -> list[T]:
    """Run two clients, each in its own thread. After an error of one client, the other does not wait for it.

    Args:
        client: gets the number of the client, from 0.
    """
    meeting = Meeting()

    def guarded(number: int) -> T:
        try:
            return client(number, meeting)
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(COUNT) as pool:
        futures = [pool.submit(guarded, number) for number in range(COUNT)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]


def _measure_pair(run: MeasureRun, parts: Sequence[ComputeShare | None]) -> list[ClientTimes]:
    shapes = shapes_of_clients(run)

    def client(number: int, meeting: Meeting) -> ClientTimes:
        shape, part = shapes[number], parts[number]
        with limited_to(part), ExitStack() as stack:
            with meeting.opening:
                session = stack.enter_context(run.session({}))
                graph = prepared(session, shape, run)
            alone, together = _phases(session, number, run, meeting)
        units, total = (part.units, part.total) if part is not None else (0, 0)
        return ClientTimes(number + 1, shape.batch, shape.sequence, graph, alone, together, units, total)

    return in_two_threads(client)


def prepared(session: Session, shape: Shape, run: MeasureRun) -> bool:
    """Run the first step, capture a CUDA graph if the session can, and warm up. Return whether it has a graph."""
    session.load(inputs_of(run.arrays, shape)[0])
    session.step()
    session.wait()
    if run.cuda_graph:
        with suppress(Unsupported):
            session.capture()
    clock.warm_up(session, run.effort)
    return session.replays


def _phases(session: Session, number: int, run: MeasureRun, meeting: Meeting) -> tuple[tuple[int, ...], ...]:
    """Return the times alone and together."""
    alone: tuple[int, ...] = ()
    for turn in range(COUNT):
        meeting.barrier.wait()
        if turn == number:
            alone = clock.time_enqueue(session, run.effort)[1].values
    meeting.barrier.wait()
    effort = replace(run.effort, min_samples=1, max_samples=MOST_SAMPLES)
    together = clock.time_enqueue(session, effort)[1].values
    meeting.barrier.wait()
    return alone, together
