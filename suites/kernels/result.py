"""Result of suite=kernels: the kernels of one step."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from backends.json_part import Part
from backends.kernel_times import ProfiledStep
from suites.suite import Result


@dataclass(frozen=True)
class KernelsResult(Result):
    """One step under a profiler, and times of steps without it.

    Attributes:
        profiler: name of the profiler.
        step: the profiled step.
        samples: times of plain steps without profiler in ns: on a GPU by events, on a CPU host time.
        steady: whether the warm-up became steady before its time limit.
    """

    json_flat: ClassVar[Mapping[str, type[Part]]] = {"step": ProfiledStep}

    profiler: str
    step: ProfiledStep
    samples: tuple[int, ...]
    steady: bool

    @property
    def step_ns(self) -> float:
        """Median time of a step without profiler."""
        return statistics.median(self.samples)

    @property
    def idle_ns(self) -> float:
        """Time without a kernel. If the profiler does not measure it: the rest of a step without profiler."""
        kernels = sum(kernel.nanoseconds for kernel in self.step.kernels)
        return max(0.0, self.step_ns - kernels) if self.step.idle_ns is None else float(self.step.idle_ns)

    @property
    def sum_ns(self) -> float:
        """Time of all kernels and of idle."""
        return sum(kernel.nanoseconds for kernel in self.step.kernels) + self.idle_ns

    @property
    def excess(self) -> float:
        """Share by which the sum is more (or, below 0, less) than a step without profiler."""
        return self.sum_ns / self.step_ns - 1


RESULT = KernelsResult
