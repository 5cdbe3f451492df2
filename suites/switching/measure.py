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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from backends.base import Array, Session, Unavailable, Unsupported
from backends.stream import Stream
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun, Opening
from suites.measuring.output_difference import compare_with_reference
from suites.measuring.request_clock import time_requests, warm_up
from suites.records.record import Measurement
from suites.running.job import Measured
from suites.schema.refusals import first_line
from suites.suite import Question
from suites.switching.output_parity import FreshOutputs, output, parity, parity_fault
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
class SwitchingResult:
    """Results that go into the record; see `measure`."""

    measurements: list[Measurement] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    switching: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {
            name: []
            for name in ("openings", "cold", "starts", "transitions", "device", "captures", "replays", "parity")
        }
    )

    def keep(self, name: str, entries: Sequence[dict[str, Any]]) -> None:
        self.switching[name] += entries


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
    found: SwitchingResult = field(default_factory=SwitchingResult)
    stream: Stream | None = None

    @contextmanager
    def opened(self, label: str, watch: bool = False) -> Iterator[Session]:
        """Open a session and close it afterwards. With `watch`, also record the device memory of each opening step."""
        self.progress(f"opening {label}")
        used: dict[str, int] = {}
        opening = _watched(self.opening(), self.stream, used) if watch and self.stream else self.opening()
        session, steps = clock.time_opening(opening)
        self.found.keep("openings", [{"of": label, "ns": steps, "bytes": used}])
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
                self.found.keep("cold", [time_first_requests(session, shape, self.workload, index, "process")])
                cases = self.workload.reference_cases[index]
                outputs[index] = [output(session, case.feeds) for case in cases]
                for case, hidden in zip(cases, outputs[index], strict=True):
                    check = compare_with_reference(hidden, case.reference, case.rows, case.feeds["attention_mask"])
                    where = {"batch": shape.batch, "sequence": shape.sequence, "cuda_graph": False}
                    self.found.checks.append({**where, **check})
        return outputs

    def serve(self, session: Session, fresh: FreshOutputs, graph: bool) -> None:
        """Measure every pair and every trace, with plain steps or with the CUDA graphs that the session keeps."""
        suffix = " with graphs" if graph else ""
        steady = False
        with self.part(f"warm-up{suffix}"):
            # The first request of each input is cold, so all inputs run once before the measurements.
            time_requests(session, self.workload.all_requests)
            steady = warm_up(session, [next(turn) for turn in self.workload.cycles_by_built_shape()], self.effort)
        self.found.facts.setdefault("steady", {})["graph" if graph else "plain"] = steady
        transitions: list[dict[str, Any]] = []
        with self.part(f"every pair of shapes{suffix}"):
            transitions = time_pairs(session, self.workload, self.repeats, self.effort.pairs_s, graph)
            self.found.keep("transitions", transitions)
        with self.part(f"replays{suffix}"):
            self.replay(session, graph, steady)
        if session.stream is not None and transitions:
            with self.part(f"every pair of shapes on the device{suffix}"):
                budget = self.effort.pairs_s
                self.found.keep(
                    "device", time_pairs_on_device(session, self.workload, transitions, self.repeats, budget)
                )
        with self.part(f"outputs after every change{suffix}"):
            checked = parity(session, self.workload, fresh, graph)
            self.found.keep("parity", [checked])
            if fault := parity_fault(checked):
                self.found.failures[f"every pair{suffix}"] = fault

    def replay(self, session: Session, graph: bool, steady: bool) -> None:
        """Serve each trace. The counts of a trace also have the requests of the whole trace (`asked`)."""
        measurements, counts = [], []
        for name, blocks in self.traffic.items():
            self.progress(f"replaying {name}{' with graphs' if graph else ''}")
            replay = replay_trace(session, self.workload, blocks, self.effort.replay_s)
            requests = sum(len(stretch) for block in blocks for stretch in block)
            measurements.append(replay.measurement(name, graph, steady))
            counts.append({"name": name, "cuda_graph": graph, **replay.counts(), "asked": requests})
        self.found.measurements += measurements
        self.found.keep("replays", counts)

    def plain(self, fresh: FreshOutputs) -> None:
        """Measure a session that runs plain steps."""
        memory: dict[str, Any] = {}
        with self.opened("plain steps", watch=True) as session:
            free = session.stream.free_memory() if session.stream else 0
            with self.part("first requests"):
                for index, shape in enumerate(self.workload.shapes):
                    self.found.keep("cold", [time_first_requests(session, shape, self.workload, index, "context")])
            if session.stream:
                memory["shapes"] = free - session.stream.free_memory()
                memory["opening"] = self.found.switching["openings"][-1]["bytes"]
                self.found.facts["memory"] = memory
            self.serve(session, fresh, False)

    def graphs(self, fresh: FreshOutputs) -> None:
        """Measure captures of CUDA graphs, then a session that keeps its graphs."""
        try:
            with self.part("captures"), self.opened("captures") as session:
                self.found.keep("captures", time_captures(session, self.workload))
            with self.part("kept graphs"), self.opened("kept graphs") as session:
                time_requests(session, self.workload.all_requests)  # allocates the buffers that do not belong to graphs
                free = session.stream.free_memory() if session.stream else 0
                self.found.facts["graphs"] = keep_graphs(session, self.workload)
                if session.stream:
                    self.found.facts["memory"]["graphs"] = free - session.stream.free_memory()
                self.serve(session, fresh, True)
        except Unsupported as reason:
            self.found.facts["no_cuda_graph"] = str(reason)


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure all parts of suite=switching. A part that fails is named in `failures`, and the others still run.

    Args:
        run: its arrays are in the format that backends/inputs/request_inputs.py writes.
        question: a SwitchingQuestion.

    Returns:
        The result has: openings (ns and bytes by step), cold (the first requests of a shape in this process and in this
        context), transitions and device (samples in ns by ordered pair), captures (by shape), replays (counts, see
        `Replay` in suites/switching/transitions.py; their samples are measurements) and parity. `starts` is
        empty: separate processes fill it, see suites/switching/cold_start.py.
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
    first = found.switching["openings"][0]["ns"]
    loading = {"cuda_module_loading": os.environ.get("CUDA_MODULE_LOADING", "")} if measuring.stream else {}
    facts = {"open_ns": sum(first.values()), "opening_ns": first, **loading, **found.facts}
    return Measured(tuple(found.measurements), tuple(found.checks), facts, found.failures, found.switching)


def _watched(opening: Opening, stream: Stream, used: dict[str, int]) -> Opening:
    """Yield the same steps, and write the bytes of device memory that each step used to `used`."""
    free = stream.free_memory()
    for name, session in opening:
        free_after = stream.free_memory()
        used[name] = used.get(name, 0) + free - free_after
        free = free_after
        yield name, session
