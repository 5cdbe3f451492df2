"""Times of the layers of an engine by TensorRT's IProfiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.kernel_times import KernelTime, ProfiledStep, joined_kernels
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt


def profiled_steps(
    api: TensorRTApi, context: trt.IExecutionContext, step: Callable[[], None], steps: int
) -> list[ProfiledStep]:
    """Run `step`, which waits for its end, under the profiler of a context.

    TensorRT reports the time of each layer in ms, without the time between layers: idle is not measured. Layers that
    it compiled as one, such as a ForeignNode, have one time.
    """
    reported: list[KernelTime] = []

    class Profiler(api.trt.IProfiler):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            api.trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reported.append(KernelTime(layer_name, round(1e6 * ms)))

    context.profiler = Profiler()
    context.enqueue_emits_profile = True
    profiled = []
    for _ in range(steps):
        reported.clear()
        step()
        profiled.append(ProfiledStep(joined_kernels(reported)))
    # Later steps run without the events of the profiler.
    context.enqueue_emits_profile = False
    return profiled
