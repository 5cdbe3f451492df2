"""The request of suite=limits: all shapes of the command line, on a GPU."""

from __future__ import annotations

from backends.description import SourceKind
from backends.registry import describe
from suites.asking.chosen_machine import machine_of
from suites.asking.resolve_options import backend_options
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.limits.suite import LimitsQuestion
from suites.schema.enums import LimitMethod
from suites.schema.refusals import Refused


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: sequences are not full, the cell would run on a CPU, or MPS cannot limit two sessions of one process.
    """
    config, limits = context.config, context.config.limits
    if context.lengths.distribution != "full":
        raise Refused(f"suite=limits measures batches of full sequences; leave lengths={config.lengths.name} out")
    if limits.sharing and limits.method is LimitMethod.mps:
        raise Refused("limits.sharing=true needs limits.method=green, because MPS limits a whole process")
    backend = describe(config.backend)
    simulated = backend.source is SourceKind.none
    if not simulated and machine_of(config, backend, backend_options(config)).device.kind == "cpu":
        raise Refused(
            "suite=limits divides the SMs of an NVIDIA GPU, and this cell runs on the CPU; on a CPU, compare values of "
            "threads with suite=latency"
        )
    shares = tuple(sorted(set(limits.shares)))
    question = LimitsQuestion(limits.method.name, shares, limits.sharing)
    options = {"method": question.method, "shares": list(shares), **({"sharing": True} if limits.sharing else {})}
    return SuiteRequest(context.shapes, context.shapes, question, options=options)
