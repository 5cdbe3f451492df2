"""The request of suite=limits: all shapes of the command line, on a GPU."""

from __future__ import annotations

from backends.description import SourceKind
from backends.registry import describe, descriptions
from suites.asking.chosen_machine import machine_of
from suites.asking.resolve_options import backend_options
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.limits.suite import LimitsQuestion, LoadPlan
from suites.schema.enums import LimitMethod
from suites.schema.refusals import Refused


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: sequences are not full, the cell would run on a CPU, MPS cannot limit two sessions of one process, or
            no engine can be built under a limit.
    """
    config, limits = context.config, context.config.limits
    if context.lengths.distribution != "full":
        raise Refused(f"suite=limits measures batches of full sequences; leave lengths={config.lengths.name} out")
    if limits.sharing and limits.method is LimitMethod.mps:
        raise Refused("limits.sharing=true needs limits.method=green, because MPS limits a whole process")
    backend = describe(config.backend)
    if limits.builds and not backend.limits_builds:
        names = sorted(name for name, other in descriptions().items() if other.limits_builds)
        raise Refused(f"backend={backend.name} builds no engine under a limit; use backend={' or '.join(names)}")
    simulated = backend.source is SourceKind.none
    if not simulated and machine_of(config, backend, backend_options(config)).device.kind == "cpu":
        raise Refused(
            "suite=limits divides the SMs of an NVIDIA GPU, and this cell runs on the CPU; on a CPU, compare values of "
            "threads with suite=latency"
        )
    shares = tuple(sorted(set(limits.shares)))
    if limits.builds and shares[0] == 1:
        raise Refused("limits.builds=true needs a share below 1, e.g. limits.shares=[0.25,1]")
    loads = LoadPlan(limits.rate, limits.load_s, tuple(sorted(set(limits.process_shares))), config.seed)
    of_loads = {"process_shares": list(loads.shares), "rate": loads.rate, "load_s": loads.seconds}
    question = LimitsQuestion(
        limits.method.name, shares, limits.sharing, builds=limits.builds, loads=loads if limits.processes else None
    )
    options = {
        "method": question.method,
        "shares": list(shares),
        **({"sharing": True} if limits.sharing else {}),
        **({"builds": True} if limits.builds else {}),
        **(of_loads if limits.processes else {}),
    }
    return SuiteRequest(context.shapes, context.shapes, question, options=options)
