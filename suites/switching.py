"""The switching question: what does it cost to go from one shape to another, and what does that make of a trace?

Runs in the measuring worker, over sessions of one backend, one open at a time: for each shape a fresh one that sees
no other, and is the first to meet it in this process; one for plain steps; one whose graphs are captured for their
cost and thrown away; and one that keeps a graph for each of the sizes that are known beforehand. In the second and
the last every ordered pair of shapes comes many times in random order, and traces are replayed request by request.
"""

from __future__ import annotations

import gc
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from backends.base import Array, Session, Shape, Unavailable, Unsupported
from backends.stream import Stream
from suites import clock
from suites.checks import first_line
from suites.clock import Effort
from suites.latency import compare
from suites.record import Measurement
from suites.request_clock import time_requests, warm_up
from suites.switching_changes import Traffic, captures, keep_graphs, met, on_device, pairs, replays
from suites.switching_parity import Fresh, complaint, output, parity
from suites.switching_workload import Workload

Opening = Iterator[tuple[str, Session | None]]


@dataclass
class Found:
    """What a record will have; see `measure`."""

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

    def keep(self, name: str, found: Sequence[dict[str, Any]]) -> None:
        self.switching[name] += found


@dataclass
class Question:
    """All that is to be asked, and how a session is opened; `stream` is one that says how much memory is free."""

    opening: Callable[[], Opening]
    workload: Workload
    effort: Effort
    traffic: Traffic
    repeats: int
    progress: Callable[[str], None]
    found: Found = field(default_factory=Found)
    stream: Stream | None = None

    @contextmanager
    def opened(self, what: str, watch: bool = False) -> Iterator[Session]:
        """A session, closed and let go of afterwards; if `watch`, each step of its opening also by memory."""
        self.progress(f"opening {what}")
        used: dict[str, int] = {}
        opening = _watched(self.opening(), self.stream, used) if watch and self.stream else self.opening()
        session, steps = clock.time_opening(opening)
        self.found.keep("openings", [{"of": what, "ns": steps, "bytes": used}])
        self.stream = session.stream
        try:
            yield session
        finally:
            with self.part(f"closing {what}"):
                session.close()
            del session
            gc.collect()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose error must not cost the others; vendors' errors share no type."""
        self.progress(name)
        try:
            yield
        except (Unsupported, Unavailable):
            raise
        except Exception as error:
            traceback.print_exc()
            self.found.failures[name] = first_line(error)

    def fresh(self) -> Fresh:
        """Outputs of sessions that see one shape each."""
        outputs: dict[int, list[Array]] = {}
        for index, shape in enumerate(self.workload.shapes):
            with self.part(f"a fresh context for {shape}"), self.opened(f"a fresh context for {shape}") as session:
                self.found.keep("cold", [met(session, shape, self.workload, index, "process")])
                judged = self.workload.judged[index]
                outputs[index] = [output(session, one.feeds) for one in judged]
                for one, given in zip(judged, outputs[index], strict=True):
                    check = compare(given, one.reference, one.rows, one.feeds["attention_mask"])
                    where = {"batch": shape.batch, "sequence": shape.sequence, "cuda_graph": False}
                    self.found.checks.append({**where, **check})
        return outputs

    def serve(self, session: Session, fresh: Fresh, graph: bool) -> None:
        """Every pair and every trace, plainly or with the graphs that the session keeps."""
        how = " with graphs" if graph else ""
        steady = False
        with self.part(f"warm-up{how}"):
            # What is met for the first time is cold: all inputs come once before anything counts.
            time_requests(session, self.workload.everything)
            steady = warm_up(session, [next(turn) for turn in self.workload.in_turn_at()], self.effort)
        self.found.facts.setdefault("steady", {})["graph" if graph else "plain"] = steady
        taken: list[dict[str, Any]] = []
        with self.part(f"every pair of shapes{how}"):
            taken = pairs(session, self.workload, self.repeats, self.effort.pairs_s, graph)
            self.found.keep("transitions", taken)
        with self.part(f"replays{how}"):
            budget = self.effort.replay_s
            measured, told = replays(session, self.workload, self.traffic, budget, graph, steady, self.progress)
            self.found.measurements += measured
            self.found.keep("replays", told)
        if session.stream is not None and taken:
            with self.part(f"every pair of shapes on the device{how}"):
                budget = self.effort.pairs_s
                self.found.keep("device", on_device(session, self.workload, taken, self.repeats, budget, graph))
        with self.part(f"outputs after every change{how}"):
            found = parity(session, self.workload, fresh, graph)
            self.found.keep("parity", [found])
            if text := complaint(found):
                self.found.failures[f"every pair{how}"] = text

    def plain(self, fresh: Fresh) -> None:
        memory: dict[str, Any] = {}
        with self.opened("plain steps", watch=True) as session:
            free = session.stream.free_memory() if session.stream else 0
            with self.part("first requests"):
                for index, shape in enumerate(self.workload.shapes):
                    self.found.keep("cold", [met(session, shape, self.workload, index, "context")])
            if session.stream:
                memory["shapes"] = free - session.stream.free_memory()
                memory["opening"] = self.found.switching["openings"][-1]["bytes"]
                self.found.facts["memory"] = memory
            self.serve(session, fresh, False)

    def graphs(self, fresh: Fresh) -> None:
        try:
            with self.part("captures"), self.opened("captures") as session:
                self.found.keep("captures", captures(session, self.workload))
            with self.part("kept graphs"), self.opened("kept graphs") as session:
                time_requests(session, self.workload.everything)  # whose buffers are not the graphs'
                free = session.stream.free_memory() if session.stream else 0
                self.found.facts["graphs"] = keep_graphs(session, self.workload)
                if session.stream:
                    self.found.facts["memory"]["graphs"] = free - session.stream.free_memory()
                self.serve(session, fresh, True)
        except Unsupported as reason:
            self.found.facts["no_cuda_graph"] = str(reason)


def measure(
    opening: Callable[[], Opening],
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
    asked: Sequence[Shape],
    traffic: Traffic,
    repeats: int,
) -> dict[str, Any]:
    """
    Args:
        opening: begins to open a session, see Backend.opening.
        shapes: those that are built and run, `asked` those that requests have.
        arrays: as backends/input_sets.py writes them.
        repeats: of each ordered pair of shapes, at most.

    Returns:
        As suites/latency.py, and `switching`: openings (ns and bytes by step), cold (the first requests at a shape in
        this process and in this context), transitions and device (samples in ns by ordered pair), captures (by shape),
        replays (what suites/switching_changes.py tells of them; their samples are measurements) and parity. `starts` is
        empty: those are processes of their own, see suites/switching_starts.py.
    """
    workload = Workload.of(arrays, asked, shapes)
    question = Question(opening, workload, effort, traffic, repeats, progress)
    fresh = question.fresh()
    question.plain(fresh)
    if cuda_graph:
        question.graphs(fresh)
    found = question.found
    first = found.switching["openings"][0]["ns"]
    loading = {"cuda_module_loading": os.environ.get("CUDA_MODULE_LOADING", "")} if question.stream else {}
    return {
        "measurements": [m.__dict__ for m in found.measurements],
        "checks": found.checks,
        "facts": {"open_ns": sum(first.values()), "opening_ns": first, **loading, **found.facts},
        "failures": found.failures,
        "switching": found.switching,
    }


def _watched(opening: Opening, stream: Stream, used: dict[str, int]) -> Opening:
    """The same, with the bytes of device memory that each step took in `used`."""
    free = stream.free_memory()
    for name, session in opening:
        left = stream.free_memory()
        used[name] = used.get(name, 0) + free - left
        free = left
        yield name, session
