"""Times of operators on a CPU, or of kernels on a GPU, by the profiler of PyTorch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from backends.base import Session
from backends.kernel_times import KernelTime, ProfiledStep, idle_between, joined_kernels

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

STEP = "suites: one step"
"""Name of the range around a step."""


def profiled_steps(session: Session, steps: int) -> list[ProfiledStep]:
    """Run steps of a session under the profiler, each with its wait.

    On a CPU, the time of an operator is without that of operators that it calls, and idle is the time of Python
    between operators. On a GPU, the times are those of kernels, copies and fills by CUPTI, also of kernels that another
    library launches, and idle is the time between the first and the last of them in which none runs.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    on_gpu = session.stream is not None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        # The first step also initializes the profiler.
        for _ in range(steps + 1):
            with record_function(STEP):
                session.step()
                session.wait()
    events = list(profiler.events() or ())
    ranges = [event for event in events if event.name == STEP and _is_on_host(event)][1:]
    return [_gpu_step(step, events) if on_gpu else _cpu_step(step) for step in ranges]


def python_share_of(session: Session, steps: int) -> float:
    """Return the median share of `Session.step` in which neither an operator nor a function of CUDA runs.

    An operator is an event with "::" in its name; ranges of compiled code, such as "Torch-Compiled Region: 0/0", are
    Python. Functions of CUDA are events such as cudaLaunchKernel.
    """
    from torch.profiler import ProfilerActivity, profile, record_function

    on_gpu = session.stream is not None
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        # The first step also initializes the profiler.
        for _ in range(steps + 1):
            with record_function(STEP):
                session.step()
            session.wait()
    events = [event for event in profiler.events() or () if _is_on_host(event)]
    native = [_span(event) for event in events if "::" in event.name or event.name.startswith("cu")]
    ranges = sorted(_span(event) for event in events if event.name == STEP)[1:]
    return statistics.median(outside_share(step, native) for step in ranges)


def outside_share(step: tuple[int, int], spans: Iterable[tuple[int, int]]) -> float:
    """Return the share of `step` that no span covers. Spans may overlap; those outside the step do not count."""
    start, end = step
    inside = [(max(start, first), min(end, last)) for first, last in spans if first < end and last > start]
    return idle_between([(start, start), *inside, (end, end)]) / max(end - start, 1)


def _span(event: FunctionEvent) -> tuple[int, int]:
    return _nanoseconds(event.time_range.start), _nanoseconds(event.time_range.end)


def _is_on_host(event: FunctionEvent) -> bool:
    return event.device_type.name == "CPU"


def _cpu_step(step: FunctionEvent) -> ProfiledStep:
    kernels: list[KernelTime] = []

    def add(event: FunctionEvent, outermost: str) -> None:
        # Ranges of compiled code, such as "Torch-Compiled Region: 0/0", are no operators.
        operator = outermost or (event.name if "::" in event.name else "")
        kernels.append(KernelTime(event.name, _nanoseconds(event.self_cpu_time_total), operator))
        for child in event.cpu_children:
            add(child, operator)

    for child in step.cpu_children:
        add(child, "")
    return ProfiledStep(joined_kernels(kernels), _nanoseconds(step.self_cpu_time_total))


def _gpu_step(step: FunctionEvent, events: Sequence[FunctionEvent]) -> ProfiledStep:
    inside = [
        event
        for event in events
        if not (_is_on_host(event) or event.is_user_annotation or event.name == STEP)
        and step.time_range.start <= event.time_range.start < step.time_range.end
    ]
    spans = [_span(event) for event in inside]
    kernels = joined_kernels(
        KernelTime(event.name, end - start) for event, (start, end) in zip(inside, spans, strict=True)
    )
    return ProfiledStep(kernels, idle_between(spans))


def _nanoseconds(microseconds: float) -> int:
    return round(1000 * microseconds)
