"""Measurement for suite=latency: time of a forward pass at each shape, with plain steps and with a CUDA graph.

Runs in the measuring worker, over any session.
"""

from __future__ import annotations

import resource
import traceback
from collections.abc import Mapping
from dataclasses import replace

from backends.base import Array, Feeds, Session, Shape, Unavailable, Unsupported
from suites.measuring import clock
from suites.measuring.clock import Effort, Samples
from suites.measuring.cpu_load import cpu_load, read_cpu
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.measuring.request_clock import time_request_parts
from suites.records.facts import Facts, ShapeFacts
from suites.records.measurement import (
    COMPUTE,
    END_TO_END,
    ENQUEUE,
    GPU,
    LATENCY,
    REQUEST_ENQUEUE,
    REQUEST_PARTS,
    SUSTAINED,
    Measurement,
    Telemetry,
)
from suites.records.parts import Check
from suites.running.job import Measured
from suites.schema.refusals import first_line
from suites.suite import Question

FIRST_USE, AFTER_TIMING = "first use", "after timing"
"""When an output was compared with FP32: before the timing, or after it (the output of the last timed step)."""


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure every shape. A shape that fails is named in `failures`, and the next shape still runs.

    Args:
        run: its arrays are inputs and references, see `inputs_of`.
    """
    steps: dict[str, int] = {}
    with run.session(steps) as session:
        measured = _measure_shapes(session, run)
    return replace(measured, facts=measured.facts.opened(steps))


def _measure_shapes(session: Session, run: MeasureRun) -> Measured:
    measurements: list[Measurement] = []
    checks: list[Check] = []
    facts: dict[str, ShapeFacts] = {}
    failures: dict[str, str] = {}
    # Ascending size: the peak memory of a process only grows, so the peak after a shape belongs to this shape.
    for shape in sorted(run.shapes, key=lambda shape: shape.batch * shape.sequence):
        try:
            feeds, reference, rows = inputs_of(run.arrays, shape)
            first = clock.time_once(lambda: _first_step(session, feeds))  # noqa: B023  called at once
            facts[str(shape)] = ShapeFacts(first)
            for graph in (False, True) if run.cuda_graph else (False,):
                run.progress(f"{shape} {'CUDA graph' if graph else 'plain'}")
                if graph:
                    try:
                        captured = clock.time_once(session.capture)
                    except Unsupported as reason:
                        facts[str(shape)] = replace(facts[str(shape)], no_cuda_graph=str(reason))
                        break
                    facts[str(shape)] = replace(facts[str(shape)], capture_ns=captured)
                    session.step()
                    session.wait()
                expected = reference, rows, feeds["attention_mask"]
                size = shape.batch, shape.sequence
                difference = compare_with_reference(session.fetch(), *expected)
                checks.append(Check.of(difference, size, graph, FIRST_USE))
                measurements += _phases(session, shape, feeds, run.effort, graph)
                difference = compare_with_reference(session.fetch(), *expected)
                checks.append(Check.of(difference, size, graph, AFTER_TIMING))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            facts[str(shape)] = replace(facts[str(shape)], peak_host_bytes=peak)
        except (Unsupported, Unavailable):
            raise
        except Exception as error:
            # A shape that does not fit must not stop the others, and vendors' errors have no common type. If the
            # session is unusable afterwards, the next shape fails too and reports it.
            traceback.print_exc()
            failures[str(shape)] = first_line(error)
    return Measured(tuple(measurements), tuple(checks), Facts(shapes=facts), failures)


def inputs_of(arrays: Mapping[str, Array], shape: Shape) -> tuple[Feeds, Array, Array]:
    """Return feeds, FP32 reference [rows, sequence, hidden], and the rows of the batch that it belongs to."""
    feeds = {name.split("/", 1)[1]: arrays[name] for name in arrays if name.startswith(f"{shape}/")}
    return feeds, feeds.pop("reference"), feeds.pop("rows")


def _first_step(session: Session, feeds: Feeds) -> None:
    session.load(feeds)
    session.step()
    session.wait()


def _phases(session: Session, shape: Shape, feeds: Feeds, effort: Effort, graph: bool) -> list[Measurement]:
    steady = clock.warm_up(session, effort)
    samples_by_phase: dict[str, Samples] = {}
    before = read_cpu()
    if session.stream is not None:
        samples_by_phase[GPU] = clock.time_device(session, effort)
    enqueue, samples_by_phase[LATENCY] = clock.time_enqueue(session, effort)
    if session.stream is not None:
        samples_by_phase[ENQUEUE] = enqueue
        samples_by_phase[SUSTAINED] = clock.time_sustained(session, effort)
    samples_by_phase[END_TO_END] = clock.time_end_to_end(session, feeds, effort)
    parts = dict(zip(REQUEST_PARTS, time_request_parts(session, feeds, effort), strict=True))
    if session.stream is None:
        # A step on a CPU returns when it is done: all of it is compute.
        parts[COMPUTE] = parts.pop(REQUEST_ENQUEUE)
    samples_by_phase |= parts
    load = Telemetry(cpu=cpu_load(before, read_cpu()))
    return [
        Measurement(phase, shape.batch, shape.sequence, graph, samples.values, samples.windows, steady, (), load)
        for phase, samples in samples_by_phase.items()
    ]
