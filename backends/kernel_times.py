"""Times of the kernels of one step, as profilers report them.

Needs CPython 3.10 and the standard library alone: records hold these times.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from backends.json_part import Part, optional


@dataclass(frozen=True)
class KernelTime(Part):
    """Kernels, operators or layers of one name in a step.

    Attributes:
        name: name of the kernel, of the graph's node or of the layer.
        kind: type of the operator or layer, or the operator that called the kernel; empty if it is not known.
        nanoseconds: sum of their times, without the times of operators that they call.
        count: number of them.
    """

    name: str
    nanoseconds: int
    kind: str = optional("")
    count: int = optional(1)


@dataclass(frozen=True)
class ProfiledStep(Part):
    """One step under a profiler.

    Attributes:
        kernels: each name and kind once.
        idle_ns: time of the step in which no kernel or operator runs; None if the profiler does not measure it.
    """

    kernels: tuple[KernelTime, ...]
    idle_ns: int | None = optional(None)


@dataclass(frozen=True)
class StepProfile:
    """A step as a profiler saw it, and the name of the profiler."""

    profiler: str
    step: ProfiledStep


def joined_kernels(kernels: Iterable[KernelTime]) -> tuple[KernelTime, ...]:
    """Return one entry for each name and kind, in the order of their first occurrence."""
    times: dict[tuple[str, str], tuple[int, int]] = {}
    for kernel in kernels:
        spent, count = times.get((kernel.name, kernel.kind), (0, 0))
        times[kernel.name, kernel.kind] = spent + kernel.nanoseconds, count + kernel.count
    return tuple(KernelTime(name, spent, kind, count) for (name, kind), (spent, count) in times.items())


def median_step(steps: Sequence[ProfiledStep]) -> ProfiledStep:
    """Return the median time of each kernel and of idle over steps of equal work.

    A single kernel that was interrupted does not change the result. A kernel that a step lacks has no time there.

    Raises:
        ValueError: there is no step.
    """
    if not steps:
        raise ValueError("the profiler reported no step")
    keys = {(kernel.name, kernel.kind): kernel for step in steps for kernel in step.kernels}
    times = [{(kernel.name, kernel.kind): kernel for kernel in step.kernels} for step in steps]
    kernels = tuple(
        KernelTime(name, round(statistics.median(_time(step.get((name, kind))) for step in times)), kind, kernel.count)
        for (name, kind), kernel in keys.items()
    )
    idle = [step.idle_ns for step in steps if step.idle_ns is not None]
    return ProfiledStep(kernels, round(statistics.median(idle)) if idle else None)


def _time(kernel: KernelTime | None) -> int:
    return 0 if kernel is None else kernel.nanoseconds


def idle_between(spans: Iterable[tuple[int, int]]) -> int:
    """Return the time between the first start and the last end in which no span runs.

    Args:
        spans: start and end of each kernel; kernels of several streams may overlap.
    """
    idle, reached = 0, None
    for start, end in sorted(spans):
        if reached is not None and start > reached:
            idle += start - reached
        reached = end if reached is None else max(reached, end)
    return idle
