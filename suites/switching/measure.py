"""Measurement for suite=switching: the cost of changes of shape, and the time of whole traces of requests.

Runs in the measuring worker. The sessions are of one backend, and one is open at a time:

1. For each shape a new session that runs only this shape. It makes the first request of this shape in the process.
2. A session for plain steps.
3. A session that captures CUDA graphs to measure the cost of a capture, and discards them.
4. A session that keeps a CUDA graph for each input size that is known in advance.

Sessions 2 and 4 run every ordered pair of shapes many times in random order, and replay traces request by request.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from backends.base import Array, Session, Unavailable, Unsupported
from backends.stream import Stream
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun, Opening
from suites.measuring.output_difference import compare_with_reference
from suites.measuring.request_clock import time_requests, warm_up
from suites.records.facts import DeviceMemory, Facts
from suites.records.measurement import Measurement
from suites.records.parts import Check
from suites.running.job import Measured
from suites.schema.refusals import first_line
from suites.suite import Question
from suites.switching.output_parity import FreshOutputs, output, parity, parity_fault
from suites.switching.result import (
    Captures,
    DeviceTimes,
    FirstRequests,
    Parity,
    ReplayCounts,
    SwitchingResult,
    Transition,
)
from suites.switching.result import Opening as OpenedSession
from suites.switching.suite import SwitchingQuestion, Traffic
from suites.switching.transitions import (
    keep_graphs,
    replay_trace,
    time_captures,
    time_first_requests,
    time_pairs,
    time_pairs_on_device,
)
from suites.switching.workload import Workload


@dataclass
class Found:
    """Everything found so far; see `measure`. The lists of samples become the fields of a SwitchingResult."""

    measurements: list[Measurement] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    failures: dict[str, str] = field(default_factory=dict)
    openings: list[OpenedSession] = field(default_factory=list)
    cold: list[FirstRequests] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    device: list[DeviceTimes] = field(default_factory=list)
    captures: list[Captures] = field(default_factory=list)
    replays: list[ReplayCounts] = field(default_factory=list)
    parity: list[Parity] = field(default_factory=list)

    def result(self) -> SwitchingResult:
        return SwitchingResult(
            openings=tuple(self.openings),
            cold=tuple(self.cold),
            transitions=tuple(self.transitions),
            device=tuple(self.device),
            captures=tuple(self.captures),
            replays=tuple(self.replays),
            parity=tuple(self.parity),
        )


@dataclass
class SwitchingMeasurement:
    """Everything that is measured over the sessions of one backend.

    Attributes:
        opening: starts to open a session, see Backend.opening.
        repeats: of each ordered pair of shapes, at most.
        stream: of the session that was opened last; used to read the free device memory. None without a device.
    """

    opening: Callable[[], Opening]
    workload: Workload
    effort: Effort
    traffic: Traffic
    repeats: int
    progress: Callable[[str], None]
    found: Found = field(default_factory=Found)
    stream: Stream | None = None

    @contextmanager
    def opened(self, label: str, watch: bool = False) -> Iterator[Session]:
        """Open a session and close it afterwards. With `watch`, also record the device memory of each opening step."""
        self.progress(f"opening {label}")
        used: dict[str, int] = {}
        opening = _watched(self.opening(), self.stream, used) if watch and self.stream else self.opening()
        session, steps = clock.time_opening(opening)
        self.found.openings.append(OpenedSession(steps, label, used))
        self.stream = session.stream
        try:
            yield session
        finally:
            with self.part(f"closing {label}"):
                session.close()
            del session
            gc.collect()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Run a part and record its error, so that the other parts still run. Vendors' errors have no common type."""
        self.progress(name)
        try:
            yield
        except (Unsupported, Unavailable):
            raise
        except Exception as error:
            traceback.print_exc()
            self.found.failures[name] = first_line(error)

    def fresh(self) -> FreshOutputs:
        """Return outputs of new sessions that run one shape each."""
        outputs: dict[int, list[Array]] = {}
        for index, shape in enumerate(self.workload.shapes):
            with self.part(f"a fresh context for {shape}"), self.opened(f"a fresh context for {shape}") as session:
                self.found.cold.append(time_first_requests(session, shape, self.workload, index, "process"))
                cases = self.workload.reference_cases[index]
                outputs[index] = [output(session, case.feeds) for case in cases]
                for case, hidden in zip(cases, outputs[index], strict=True):
                    check = compare_with_reference(hidden, case.reference, case.rows, case.feeds["attention_mask"])
                    self.found.checks.append(Check.of(check, (shape.batch, shape.sequence), cuda_graph=False))
        return outputs

    def serve(self, session: Session, fresh: FreshOutputs, graph: bool) -> None:
        """Measure every pair and every trace, with plain steps or with the CUDA graphs that the session keeps."""
        suffix = " with graphs" if graph else ""
        steady = False
        with self.part(f"warm-up{suffix}"):
            # The first request of each input is cold, so all inputs run once before the measurements.
            time_requests(session, self.workload.all_requests)
            steady = warm_up(session, [next(turn) for turn in self.workload.cycles_by_built_shape()], self.effort)
        by_kind = {**self.found.facts.steady, "graph" if graph else "plain": steady}
        self.found.facts = replace(self.found.facts, steady=by_kind)
        transitions: list[Transition] = []
        with self.part(f"every pair of shapes{suffix}"):
            transitions = time_pairs(session, self.workload, self.repeats, self.effort.pairs_s, graph)
            self.found.transitions += transitions
        with self.part(f"replays{suffix}"):
            self.replay(session, graph, steady)
        if session.stream is not None and transitions:
            with self.part(f"every pair of shapes on the device{suffix}"):
                budget = self.effort.pairs_s
                self.found.device += time_pairs_on_device(session, self.workload, transitions, self.repeats, budget)
        with self.part(f"outputs after every change{suffix}"):
            checked = parity(session, self.workload, fresh, graph)
            self.found.parity.append(checked)
            if fault := parity_fault(checked):
                self.found.failures[f"every pair{suffix}"] = fault

    def replay(self, session: Session, graph: bool, steady: bool) -> None:
        """Serve each trace. The counts of a trace also have the requests of the whole trace."""
        measurements, counts = [], []
        for name, blocks in self.traffic.items():
            self.progress(f"replaying {name}{' with graphs' if graph else ''}")
            replay = replay_trace(session, self.workload, blocks, self.effort.replay_s)
            requests = sum(len(stretch) for block in blocks for stretch in block)
            measurements.append(replay.measurement(name, graph, steady))
            counts.append(replay.counts(name, graph, requests))
        self.found.measurements += measurements
        self.found.replays += counts

    def plain(self, fresh: FreshOutputs) -> None:
        """Measure a session that runs plain steps."""
        with self.opened("plain steps", watch=True) as session:
            free = session.stream.free_memory() if session.stream else 0
            with self.part("first requests"):
                for index, shape in enumerate(self.workload.shapes):
                    self.found.cold.append(time_first_requests(session, shape, self.workload, index, "context"))
            if session.stream:
                memory = DeviceMemory(self.found.openings[-1].bytes, free - session.stream.free_memory())
                self.found.facts = replace(self.found.facts, memory=memory)
            self.serve(session, fresh, False)

    def graphs(self, fresh: FreshOutputs) -> None:
        """Measure captures of CUDA graphs, then a session that keeps its graphs."""
        try:
            with self.part("captures"), self.opened("captures") as session:
                self.found.captures += time_captures(session, self.workload)
            with self.part("kept graphs"), self.opened("kept graphs") as session:
                time_requests(session, self.workload.all_requests)  # allocates the buffers that do not belong to graphs
                free = session.stream.free_memory() if session.stream else 0
                self.found.facts = replace(self.found.facts, graphs=keep_graphs(session, self.workload))
                if session.stream and self.found.facts.memory:
                    memory = replace(self.found.facts.memory, graphs=free - session.stream.free_memory())
                    self.found.facts = replace(self.found.facts, memory=memory)
                self.serve(session, fresh, True)
        except Unsupported as reason:
            self.found.facts = replace(self.found.facts, no_cuda_graph=str(reason))


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure all parts of suite=switching. A part that fails is named in `failures`, and the others still run.

    Args:
        run: its arrays are in the format that backends/inputs/request_inputs.py writes.
        question: a SwitchingQuestion.

    Returns:
        The result is a SwitchingResult. Its `starts` are empty: separate processes fill them, see
        suites/switching/cold_start.py.
    """
    question = cast(SwitchingQuestion, question)
    workload = Workload.of(run.arrays, question.requested, run.shapes)
    measuring = SwitchingMeasurement(
        run.opening, workload, run.effort, question.traffic, question.repeats, run.progress
    )
    fresh = measuring.fresh()
    measuring.plain(fresh)
    if run.cuda_graph:
        measuring.graphs(fresh)
    found = measuring.found
    loading = os.environ.get("CUDA_MODULE_LOADING", "") if measuring.stream else ""
    facts = replace(found.facts.opened(found.openings[0].ns), cuda_module_loading=loading)
    return Measured(tuple(found.measurements), tuple(found.checks), facts, found.failures, found.result())


def _watched(opening: Opening, stream: Stream, used: dict[str, int]) -> Opening:
    """Yield the same steps, and write the bytes of device memory that each step used to `used`."""
    free = stream.free_memory()
    for name, session in opening:
        free_after = stream.free_memory()
        used[name] = used.get(name, 0) + free - free_after
        free = free_after
        yield name, session
