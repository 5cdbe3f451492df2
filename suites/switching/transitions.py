"""Cost of single changes of shape, of CUDA graph captures, and of whole traces.

Changes run over every ordered pair of shapes in random order. They are timed with the host clock and the device clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import TypeVar

import numpy as np

from backends.base import Session, Shape
from suites.measuring import clock
from suites.measuring.request_clock import Budget, RequestTimes, time_on_device, time_request, time_requests
from suites.records.measurement import REPLAY, Measurement
from suites.switching.result import (
    Captures,
    DeviceTimes,
    FirstRequests,
    ReplayCounts,
    Size,
    Transition,
    VisitSamples,
)
from suites.switching.traffic import euler_circuit
from suites.switching.workload import Workload

T = TypeVar("T")

CAPTURE_REPEATS = 5
"""Captures of the CUDA graph of each shape, to measure the cost of a capture."""

MIN_ROUNDS = 2
"""Rounds over all pairs that always run, even when the time is over."""

Block = Sequence[Sequence[int]]
"""Stretches of requests, which can be served without other blocks. A request is the index of its shape."""


def time_pairs(session: Session, workload: Workload, repeats: int, seconds: float, graph: bool) -> list[Transition]:
    """Time three requests of a shape after a request of another shape (or of the same shape).

    The first request pays for the change. The third is the steady state at the same point of the run.

    Args:
        repeats: of each ordered pair, at most.
        seconds: time budget; at least AT_LEAST rounds run.
    """
    turns, budget = workload.cycles_by_built_shape(), Budget.of(seconds)
    visits_by_pair: dict[tuple[int, int], list[tuple[int, list[RequestTimes]]]] = {}
    time_request(session, next(turns[0]))
    earlier = 0
    for number in range(repeats):
        if number >= MIN_ROUNDS and not budget.left:
            break
        for before, after in pairwise(euler_circuit(len(workload.shapes), 1, seed=number)):
            visit = [time_request(session, next(turns[after])) for _ in range(3)]
            visits_by_pair.setdefault((before, after), []).append((earlier, visit))
            earlier = before
    sizes = [_size(shape) for shape in workload.shapes]
    return [
        Transition(
            sizes[a],
            sizes[b],
            graph,
            _samples([visit for _, visit in visits]),
            tuple(sizes[earlier] for earlier, _ in visits),
        )
        for (a, b), visits in sorted(visits_by_pair.items())
    ]


def _samples(visits: Sequence[Sequence[RequestTimes]]) -> VisitSamples:
    def threes(value: Callable[[RequestTimes], T]) -> tuple[tuple[T, ...], ...]:
        return tuple(tuple(value(served) for served in visit) for visit in visits)

    def part(name: str) -> Callable[[RequestTimes], int]:
        return lambda served: served.parts.get(name, 0)

    names = dict.fromkeys(name for visit in visits for served in visit for name in served.parts)
    return VisitSamples(
        parts={name: threes(part(name)) for name in names},
        copy=threes(lambda served: served.copy),
        enqueue=threes(lambda served: served.enqueue),
        step=threes(lambda served: served.step),
        whole=threes(lambda served: served.whole),
        replayed=threes(lambda served: served.replayed),
    )


def time_first_requests(session: Session, shape: Shape, workload: Workload, index: int, where: str) -> FirstRequests:
    """Time the first three requests of a shape in a new process, context or cold-start process, as `where` says."""
    turns = workload.cycles_by_built_shape()[index]
    return FirstRequests(_size(shape), where, _samples([[time_request(session, next(turns)) for _ in range(3)]]))


def time_pairs_on_device(
    session: Session, workload: Workload, transitions: Sequence[Transition], repeats: int, seconds: float
) -> list[DeviceTimes]:
    """Measure the device time of the first and the second step after every change of shape.

    Args:
        transitions: the result of `time_pairs`, not empty. Its enqueue times say how long the host needs.

    A visit has no sample if the device was idle before the host had enqueued both steps.
    """
    host = [np.median(np.sum(np.asarray(t.samples.enqueue)[:, :2], axis=1)) for t in transitions]
    ahead = round(1_000_000 + 2 * max(host))
    turns, budget = workload.cycles_by_built_shape(), Budget.of(seconds)
    nodes = range(len(workload.shapes))
    times_by_pair: dict[tuple[int, int], list[tuple[int, int] | None]] = {pair: [] for pair in product(nodes, nodes)}
    for number in range(repeats):
        if number >= MIN_ROUNDS and not budget.left:
            break
        for index in np.random.default_rng(number).permutation(len(times_by_pair)).tolist():
            before, after = pair = list(times_by_pair)[index]
            times_by_pair[pair].append(time_on_device(session, next(turns[before]), next(turns[after]), ahead))
    return [
        DeviceTimes(
            _size(workload.shapes[a]),
            _size(workload.shapes[b]),
            transitions[0].cuda_graph,
            first=tuple(sample[0] for sample in times if sample),
            again=tuple(sample[1] for sample in times if sample),
            overtaken=times.count(None),
        )
        for (a, b), times in times_by_pair.items()
    ]


def time_captures(session: Session, workload: Workload) -> list[Captures]:
    """Capture the CUDA graph of each shape several times and discard it."""
    costs = []
    for index, shape in enumerate(workload.shapes):
        samples: dict[str, list[int]] = {"capture": [], "launch": [], "again": [], "bytes": []}
        for _ in range(CAPTURE_REPEATS):
            # Each capture follows a plain step of its shape. Before it, another shape runs, if there is one.
            session.keeps_graphs = False
            for at in ((index + 1) % len(workload.shapes), index):
                session.load(workload.reference_cases[at][0].feeds)
                session.step()
                session.wait()
            free = session.stream.free_memory() if session.stream else 0
            samples["capture"].append(clock.time_once(session.capture))
            samples["bytes"].append(free - session.stream.free_memory() if session.stream else 0)
            for launch in ("launch", "again"):
                samples[launch].append(clock.time_step(session))
        times = {name: tuple(values) for name, values in samples.items()}
        costs.append(Captures(_size(shape), times["capture"], times["launch"], times["again"], times["bytes"]))
    return costs


def keep_graphs(session: Session, workload: Workload) -> int:
    """Capture and keep a CUDA graph for the size of each input that is known in advance, and of the first judged input
    of each shape. The session launches a graph whenever its size comes again. Return the number of graphs.

    Raises:
        Unsupported: the session cannot keep them.
    """
    session.keeps_graphs = True
    kept = 0
    expected = [feeds for sets in workload.capture_inputs for feeds in sets] + [
        sets[0].feeds for sets in workload.reference_cases
    ]
    for feeds in expected:
        session.load(feeds)
        if session.replays:
            continue
        session.step()
        session.wait()
        session.capture()
        kept += 1
    return kept


@dataclass
class Replay:
    """Requests of a trace that were served.

    Attributes:
        values: ns of each request.
        windows: (start in ns, end in ns, number of requests) of each stretch.
        blocks: requests of each served block.
        switches: requests whose shape differs from the shape before.
        replayed: requests that launched a CUDA graph.
    """

    values: list[int] = field(default_factory=list)
    windows: list[tuple[int, int, int]] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    switches: int = 0
    replayed: int = 0

    def measurement(self, name: str, graph: bool, steady: bool) -> Measurement:
        """Return the measurement of the trace `name`, with one sample for each request."""
        return Measurement(REPLAY, 0, 0, graph, tuple(self.values), tuple(self.windows), steady, trace=name)

    def counts(self, name: str, graph: bool, requests: int) -> ReplayCounts:
        """Return the counts of the trace `name`, which has `requests` requests in total."""
        return ReplayCounts(name, graph, tuple(self.blocks), self.switches, self.replayed, requests)


def replay_trace(session: Session, workload: Workload, blocks: Sequence[Block], seconds: float) -> Replay:
    """Serve a trace request by request and block by block, until its time is over; at least the first block."""
    turns, budget, replay = workload.in_turn(), Budget.of(seconds), Replay()
    for block in blocks:
        if replay.blocks and not budget.left:
            break
        for stretch in block:
            # Run the first shape once before the stretch, so that the first request has no change of shape.
            time_request(session, next(turns[stretch[0]]))
            samples, launched = time_requests(session, [next(turns[index]) for index in stretch])
            replay.values += samples.values
            replay.windows += samples.windows
            replay.replayed += launched
            replay.switches += sum(workload.runs_at[a] != workload.runs_at[b] for a, b in pairwise(stretch))
        replay.blocks.append(sum(map(len, block)))
    return replay


def _size(shape: Shape) -> Size:
    return shape.batch, shape.sequence
