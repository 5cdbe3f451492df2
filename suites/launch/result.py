"""Result of suite=launch: host and device times of a step, with and without a CUDA graph."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from backends.json_part import Part, optional
from suites.suite import Result


@dataclass(frozen=True)
class LaunchTimes(Part):
    """Times of a step at one shape, in ns.

    Attributes:
        cuda_graph: whether each step replays a CUDA graph.
        enqueue: host times of `step` on an idle device. On a CPU this is the whole step.
        steady: whether the warm-up became steady before its time limit.
        native: host times of the library call within each of these steps; empty if a step makes several calls.
        profiled_share: share of Python by the profiler of the library, for a step with several calls; None if it has no
            such profiler.
        busy: device times of a step that never waits for the host; empty on a CPU, or if they were not measured.
        steps: device times of a step among steps back to back; empty on a CPU.
    """

    batch: int
    sequence: int
    cuda_graph: bool
    enqueue: tuple[int, ...]
    steady: bool
    native: tuple[int, ...] = optional(())
    profiled_share: float | None = optional(None)
    busy: tuple[int, ...] = optional(())
    steps: tuple[int, ...] = optional(())

    @property
    def enqueue_ms(self) -> float:
        return statistics.median(self.enqueue) / 1e6

    @property
    def step_ms(self) -> float:
        """Time of a step among steps back to back; on a CPU that of one step."""
        return statistics.median(self.steps or self.enqueue) / 1e6

    @property
    def busy_ms(self) -> float | None:
        return statistics.median(self.busy) / 1e6 if self.busy else None

    @property
    def python_share(self) -> float | None:
        """Median share of `step` outside of the library call, or the share of the profiler."""
        if not self.native:
            return self.profiled_share
        pairs = zip(self.enqueue, self.native, strict=True)
        return statistics.median(1 - call / step if step else 0.0 for step, call in pairs)

    @property
    def waiting_share(self) -> float | None:
        """Share of a step in which the GPU waits for the host: 1 - busy / step. None if it is not known."""
        return max(0.0, 1 - self.busy_ms / self.step_ms) if self.busy_ms is not None and self.steps else None


@dataclass(frozen=True)
class LaunchResult(Result):
    """All shapes, each without a CUDA graph and, if there is one, with it."""

    times: tuple[LaunchTimes, ...]

    def at(self, batch: int, sequence: int, cuda_graph: bool) -> LaunchTimes | None:
        """Return the times of a shape; None if they were not measured."""
        for times in self.times:
            if (times.batch, times.sequence, times.cuda_graph) == (batch, sequence, cuda_graph):
                return times
        return None

    @property
    def sequences(self) -> tuple[int, ...]:
        return tuple(sorted({times.sequence for times in self.times}))

    def plain(self, sequence: int) -> list[LaunchTimes]:
        """Return the times without a CUDA graph at a sequence length, by ascending batch."""
        found = [times for times in self.times if times.sequence == sequence and not times.cuda_graph]
        return sorted(found, key=lambda times: times.batch)


RESULT = LaunchResult
