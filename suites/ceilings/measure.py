"""Measurement for suite=ceilings: time of each operation that the device can run.

Runs in the measuring worker, over an OperationSession.
"""

from __future__ import annotations

import traceback
from typing import cast

from backends.base import Session
from backends.operations import AND_WAIT, GRAPH_LAUNCH, KERNEL_LAUNCH, LeftOut, Operation, OperationSession
from suites.ceilings.result import Ceiling, CeilingsResult
from suites.ceilings.suite import CeilingsQuestion
from suites.measuring import clock
from suites.measuring.clock import Effort
from suites.measuring.measure_run import MeasureRun
from suites.records.facts import Facts
from suites.running.job import Measured
from suites.schema.refusals import first_line
from suites.suite import Question


def measure(run: MeasureRun, question: Question) -> Measured:
    """Measure every operation. One that fails is left out with its error, and the next one still runs."""
    asked, steps, ceilings = cast(CeilingsQuestion, question), dict[str, int](), list[Ceiling]()
    with run.session(steps) as session:
        assert isinstance(session, OperationSession)
        operations, left_out = session.operations(asked.sizes, asked.megabytes << 20)
        for operation in operations:
            run.progress(f"{operation.name} {operation.precision} {operation.size or ''}".rstrip())
            try:
                session.select(operation)
                ceilings.append(_ceiling(session, operation, run.effort))
            except Exception as error:  # Vendors' errors have no common type.
                traceback.print_exc()
                left_out.append(LeftOut(operation.name, operation.precision, first_line(error)))
    failures = {} if ceilings else {"all operations": left_out[0].reason}
    result = CeilingsResult(tuple(ceilings), tuple(left_out))
    return Measured(facts=Facts().opened(steps), failures=failures, result=result)


def _ceiling(session: Session, operation: Operation, effort: Effort) -> Ceiling:
    session.step()
    session.wait()
    if operation.name.startswith(GRAPH_LAUNCH):
        session.capture()
    steady = clock.warm_up(session, effort)
    if operation.name.endswith(AND_WAIT) or session.stream is None:
        _, samples = clock.time_enqueue(session, effort)
    elif operation.name in (KERNEL_LAUNCH, GRAPH_LAUNCH):
        samples = clock.time_sustained(session, effort)
    else:
        samples = clock.time_device(session, effort)
    return Ceiling(operation, samples.values, steady)
