"""Measurement for suite=limits: latency and throughput of a step on shares of the compute units of a device.

Runs in the measuring worker, over any session. Each share has a new session, which is opened within the limit. Two
clients with loads are two children of the worker, or two threads of a child.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

from backends.base import Session, Shape, Unsupported
from backends.compute_share import ComputeShare, limited_to
from suites.latency.measure import inputs_of
from suites.limits.clients import measure_clients
from suites.limits.load_clients import measure_client
from suites.limits.load_processes import measure_loads
from suites.limits.result import EngineBuild, LimitedTimes, LimitsResult
from suites.limits.suite import LimitsQuestion
from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun
from suites.measuring.output_difference import compare_with_reference
from suites.records.facts import Facts, ShapeFacts
from suites.records.parts import Check
from suites.running.job import Measured
from suites.suite import Question


@dataclass
class LimitsMeasurement:
    """Measurement of one share after another."""

    run: MeasureRun
    built_share: float
    times: list[LimitedTimes] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    facts: dict[str, ShapeFacts] = field(default_factory=dict)
    opening: dict[str, int] = field(default_factory=dict)

    def measure_share(self, share: float, given: ComputeShare) -> None:
        """Measure all shapes in a new session. The record has the opening of the first session."""
        steps = dict[str, int]()
        with self.run.session(steps) as session:
            self.opening = self.opening or steps
            for shape in self.run.shapes:
                self.run.progress(f"{shape} on {share:.0%}")
                session.load(inputs_of(self.run.arrays, shape)[0])
                self._check(session, shape, graph=False)
                self._time(session, shape, (share, given), graph=False)
                if self.run.cuda_graph:
                    try:
                        session.capture()
                    except Unsupported as reason:
                        self.facts[str(shape)] = ShapeFacts(no_cuda_graph=str(reason))
                        continue
                    self._check(session, shape, graph=True)
                    self._time(session, shape, (share, given), graph=True)

    def _check(self, session: Session, shape: Shape, graph: bool) -> None:
        feeds, reference, rows = inputs_of(self.run.arrays, shape)
        session.step()
        session.wait()
        difference = compare_with_reference(session.fetch(), reference, rows, feeds["attention_mask"])
        self.checks.append(Check.of(difference, (shape.batch, shape.sequence), graph))

    def _time(self, session: Session, shape: Shape, limit: tuple[float, ComputeShare], graph: bool) -> None:
        share, given = limit
        steady = clock.warm_up(session, self.run.effort)
        latency = clock.time_enqueue(session, self.run.effort)[1].values
        sustained = clock.time_sustained(session, self.run.effort).values
        size = (shape.batch, shape.sequence)
        self.times.append(
            LimitedTimes(*size, share, graph, latency, sustained, steady, given.units, given.total, self.built_share)
        )


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure all shapes at the shares of the round, or two clients with loads, or one of these clients.

    Args:
        run: its arrays are inputs and references, as for suite=latency.
        question: a LimitsQuestion.
    """
    question = cast(LimitsQuestion, question)
    if question.client is not None:
        return Measured(result=LimitsResult(question.method, (), loads=measure_client(run, question)))
    if question.round.loads:
        return Measured(result=LimitsResult(question.method, (), loads=measure_loads(run, question)))
    return _measure_shares(run, question)


def _measure_shares(run: MeasureRun, question: LimitsQuestion) -> Measured:
    current = question.round
    measurement = LimitsMeasurement(run, current.built_share)
    for share in current.shares:
        with _limited(run, question, share) as given:
            measurement.measure_share(share, given)
    clients = measure_clients(run) if question.sharing and not current.built_share else ()
    builds = (_build(run, current.built_share),) if question.builds else ()
    facts = Facts(shapes=measurement.facts).opened(measurement.opening)
    result = LimitsResult(question.method, tuple(measurement.times), clients, builds)
    return Measured(checks=tuple(measurement.checks), facts=facts, result=result)


def _build(run: MeasureRun, share: float) -> EngineBuild:
    artifact = run.artifact
    assert artifact is not None
    return EngineBuild(share, artifact.seconds, artifact.sha256, run.tactics())


@contextmanager
def _limited(run: MeasureRun, question: LimitsQuestion, share: float) -> Iterator[ComputeShare]:
    """Limit this process, or the sessions of this thread, to a share of the device."""
    if question.limits_process:
        with run.limit_process(share) as given:
            yield given
        return
    (given,) = run.divide((share,))
    with limited_to(given):
        yield given
