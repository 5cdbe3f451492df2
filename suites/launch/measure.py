"""Measurement for suite=launch: enqueue, Python and waiting of each shape, without a CUDA graph and with it.

Runs in the measuring worker, over any session. The methods:

- Enqueue time: host time of `Session.step` on an idle device. On a CPU it contains the computation.
- Share of Python, for a step that is one call of a library (ONNX Runtime, TensorRT, every CUDA graph): a clock is read
  around the step, and around the call within it (`Session.observed`); the share is 1 - call / step.
- Share of Python, for a step of several calls (PyTorch without a graph): the profiler of the library reports operators
  and CUDA functions; the share is the time of `step` in which none of them runs. The profiler makes both slower.
- Time for which the GPU waits for the host: 1 - busy / step. `busy` is the device time of a step that is enqueued
  while the device does other work, and `step` the device time of a step among steps back to back, both by events.
"""

from __future__ import annotations

from dataclasses import replace

from backends.base import Session, Shape, Unsupported
from suites.latency.measure import inputs_of
from suites.launch.result import LaunchResult, LaunchTimes
from suites.measuring import clock
from suites.measuring.launch_clock import time_busy, time_library_call, time_steady_state
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts, ShapeFacts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question

STEPS = 20
"""Steps under the profiler of a library."""


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure all shapes.

    Args:
        run: its arrays are inputs and references, as for suite=latency.
    """
    steps, checks, times, facts = dict[str, int](), list[Check](), list[LaunchTimes](), dict[str, ShapeFacts]()
    shares: dict[Shape, float | None] = {}
    with run.session(steps) as session:
        for shape in run.shapes:
            run.progress(f"{shape} plain")
            checks.append(_check(session, shape, run))
            times.append(_times(session, shape, run, graph=False))
            if not times[-1].native:
                run.progress(f"{shape} under the profiler")
                shares[shape] = session.python_share(STEPS)
            if run.cuda_graph:
                try:
                    session.capture()
                except Unsupported as reason:
                    facts[str(shape)] = ShapeFacts(no_cuda_graph=str(reason))
                    continue
                run.progress(f"{shape} CUDA graph")
                times.append(_times(session, shape, run, graph=True))
    found = tuple(_with_share(each, shares) for each in times)
    return Measured(checks=tuple(checks), facts=Facts(shapes=facts).opened(steps), result=LaunchResult(found))


def _check(session: Session, shape: Shape, run: MeasureRun) -> Check:
    feeds, reference, rows = inputs_of(run.arrays, shape)
    session.load(feeds)
    session.step()
    session.wait()
    difference = compare_with_reference(session.fetch(), reference, rows, feeds["attention_mask"])
    return Check.of(difference, (shape.batch, shape.sequence), False)


def _times(session: Session, shape: Shape, run: MeasureRun, graph: bool) -> LaunchTimes:
    steady = clock.warm_up(session, run.effort)
    pair = time_library_call(session, run.effort)
    enqueue, native = pair if pair is not None else (clock.time_enqueue(session, run.effort)[0], None)
    busy = None if session.stream is None else time_busy(session, run.effort)
    back_to_back = None if session.stream is None else time_steady_state(session, run.effort)
    return LaunchTimes(
        shape.batch,
        shape.sequence,
        graph,
        enqueue.values,
        steady,
        native=native.values if native else (),
        busy=busy.values if busy else (),
        steps=back_to_back.values if back_to_back else (),
    )


def _with_share(times: LaunchTimes, shares: dict[Shape, float | None]) -> LaunchTimes:
    """Add the share of the profiler to the times without a graph."""
    share = None if times.cuda_graph else shares.get(Shape(times.batch, times.sequence))
    return replace(times, profiled_share=share)
