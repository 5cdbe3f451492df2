"""Measurement for suite=alignment: time of one step at each shape, without padding and with it.

Runs in the measuring worker, over any session. All shapes are measured in ascending and then in descending order, so
that a slow drift of the machine does not favour small or large shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from backends.base import Array, Feeds, Session, Unsupported
from suites.alignment.result import AlignmentResult, TimedShape
from suites.alignment.suite import AlignmentQuestion, TimedRun
from suites.latency.measure import inputs_of
from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure all shapes of the round. The output of each shape without padding is compared with FP32.

    Args:
        run: its arrays are inputs and references, as for suite=latency.
    """
    asked, steps = cast(AlignmentQuestion, question), dict[str, int]()
    runs = asked.runs if asked.variant is None else tuple(TimedRun(shape) for shape in asked.centres)
    checks: list[Check] = []
    times: dict[TimedRun, TimedShape] = {}
    with run.session(steps) as session:
        for number, of_pass in enumerate((runs, runs[::-1]), 1):
            for place, timed_run in enumerate(of_pass, 1):
                run.progress(f"pass {number}, {place} of {len(of_pass)}: {timed_run.shape}")
                if number == 1 and not timed_run.padded:
                    checks.append(_check(session, timed_run, run.arrays))
                found = _timed(session, timed_run, run)
                times[timed_run] = _joined(times[timed_run], found) if timed_run in times else found
    if asked.variant is None:
        result = AlignmentResult(asked.sweeps, tuple(times.values()), asked.variants, asked.removes_padding)
    else:
        result = AlignmentResult((), (), (replace(asked.variant, shapes=tuple(times.values())),))
    return Measured(checks=tuple(checks), facts=Facts().opened(steps), result=result)


def feeds_of(timed_run: TimedRun, arrays: Mapping[str, Array]) -> Feeds:
    """Return the inputs of a run. With padding, the mask leaves out the last token of each sequence."""
    feeds, _, _ = inputs_of(arrays, timed_run.shape)
    if not timed_run.padded:
        return feeds
    mask = feeds["attention_mask"].copy()
    mask[:, -1] = 0
    return {**feeds, "attention_mask": mask}


def _check(session: Session, timed_run: TimedRun, arrays: Mapping[str, Array]) -> Check:
    shape = timed_run.shape
    feeds, reference, rows = inputs_of(arrays, shape)
    _first_step(session, feeds)
    difference = compare_with_reference(session.fetch(), reference, rows, feeds["attention_mask"])
    return Check.of(difference, (shape.batch, shape.sequence), False)


def _timed(session: Session, timed_run: TimedRun, run: MeasureRun) -> TimedShape:
    _first_step(session, feeds_of(timed_run, run.arrays))
    graph = run.cuda_graph and _captured(session)
    steady = clock.warm_up(session, run.effort)
    if session.stream is None:
        samples = clock.time_enqueue(session, run.effort)[1].values
    else:
        samples = clock.time_device(session, run.effort).values
    shape = timed_run.shape
    return TimedShape(shape.batch, shape.sequence, samples, steady, timed_run.padded, graph)


def _first_step(session: Session, feeds: Feeds) -> None:
    session.load(feeds)
    session.step()
    session.wait()


def _captured(session: Session) -> bool:
    """Record a CUDA graph, if the session can. Return whether it has one."""
    try:
        session.capture()
    except Unsupported:
        return False
    return True


def _joined(first: TimedShape, second: TimedShape) -> TimedShape:
    """Return the times of both passes."""
    steady, graph = first.steady and second.steady, first.cuda_graph and second.cuda_graph
    return replace(first, steady=steady, cuda_graph=graph, again=second.samples)
