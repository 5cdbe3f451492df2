"""The request of suite=kernels: the largest shape, and the profiler."""

from __future__ import annotations

from suites.asking.suite_request import RequestContext, SuiteRequest, require_model
from suites.kernels.suite import KernelsQuestion
from suites.measuring.machine import gpus
from suites.schema.enums import DeviceKind, Profiler
from suites.schema.refusals import Refused


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: the backend runs no model, or the profiler observes GPUs only and the cell would run on a CPU.
    """
    config = context.config
    require_model(config)
    largest, profiler = context.shapes[-1:], config.profile
    on_gpu = config.device is not DeviceKind.cpu and bool(gpus())
    if profiler is not Profiler.library and not on_gpu:
        raise Refused(f"profile={profiler.name} observes kernels of a GPU; on a CPU use profile=library")
    return SuiteRequest(largest, largest, KernelsQuestion(profiler.name), options={"profile": profiler.name})
