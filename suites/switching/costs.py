"""Cost model of suite=switching: predict the time of any trace, and the break-even point of two strategies.

The model adds a mean steady time for each request and a mean extra cost for each change of shape. The means include
every sample: an event that occurs once in a hundred requests is part of the time of a hundred requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, permutations

import numpy as np

from backends.base import Array
from suites.records.record import Record
from suites.statistics.stats import bounds
from suites.statistics.validity import Scores, problems
from suites.switching.output_parity import parity_fault
from suites.switching.result import DeviceTimes, Size, SwitchingResult, Transition
from suites.switching.traffic import fitting_shape, switch_of

Pair = tuple[Size, Size]

RESAMPLES = 500
"""Bootstrap resamples of all visits."""


def result_of(record: Record) -> SwitchingResult:
    """Return the result of a record; without samples if the cell has none."""
    return record.result if isinstance(record.result, SwitchingResult) else SwitchingResult(())


@dataclass(frozen=True)
class Visits:
    """Times of one ordered pair of shapes. A visit is three requests of the second shape after a request of the first.

    Attributes:
        parts: [visits, 3] ns by name, of the preparation for the shape.
        copy, enqueue, step, whole: [visits, 3] ns.
        replayed: [visits, 3] 1 where the request launched a CUDA graph, else 0.
        earlier: for each visit, the shape that ran before the first shape.
    """

    parts: Mapping[str, Array]
    copy: Array
    enqueue: Array
    step: Array
    whole: Array
    replayed: Array
    earlier: Sequence[Size]

    @classmethod
    def of(cls, transition: Transition) -> Visits:
        samples = transition.samples
        several = (samples.copy, samples.enqueue, samples.step, samples.whole, samples.replayed)
        copy, enqueue, step, whole, replayed = (np.asarray(values, float) for values in several)
        parts = {name: np.asarray(values, float) for name, values in samples.parts.items()}
        return cls(parts, copy, enqueue, step, whole, replayed, transition.earlier)

    @property
    def extra(self) -> Array:
        """Cost of the change [visits] in ns: time of the first request minus time of the third, which has no change."""
        return np.asarray(self.whole[:, 0] - self.whole[:, 2])


@dataclass(frozen=True)
class Trace:
    """Counts of requests, of each shape and of each change of shape in a trace."""

    shapes: Mapping[Size, int]
    changes: Mapping[Pair, int]
    requests: int

    @classmethod
    def of(cls, trace: Sequence[Size]) -> Trace:
        changes = Counter(pair for pair in pairwise(trace) if pair[0] != pair[1])
        return cls(Counter(trace), changes, len(trace))


@dataclass(frozen=True)
class Means:
    """Mean times in ns, each a number or an array [resamples].

    Attributes:
        steady: by shape, the time of a request that has the same shape as the request before.
        change: by ordered pair of different shapes, the extra time of a request of the second shape after the first.
        served: for each shape of requests, the shape that runs it.
    """

    steady: Mapping[Size, Array]
    change: Mapping[Pair, Array]
    served: Sequence[Size]

    def at(self, switch: float | Array) -> Array:
        """Return the mean time of a request in ns, where its shape changes with probability `switch`.

        Every other shape is equally likely.
        """
        pairs = list(permutations(self.served, 2))
        # Two shapes of requests that run at the same built shape have no change.
        change = sum(self.change[pair] for pair in pairs if pair in self.change) / max(len(pairs), 1)
        steady = np.mean([self.steady[shape] for shape in self.served], axis=0)
        return np.asarray(steady + switch * change)

    def of_trace(self, trace: Trace) -> Array:
        """Return the time of a whole trace in ns."""
        steady = sum(count * self.steady[shape] for shape, count in trace.shapes.items())
        return np.asarray(steady + sum(count * self.change[pair] for pair, count in trace.changes.items()))


@dataclass(frozen=True)
class Costs:
    """Measured costs of one strategy, with plain steps or with CUDA graphs that are kept.

    Attributes:
        tasks: accuracy scores of the same path, by task.
    """

    record: Record
    cuda_graph: bool
    visits: Mapping[Pair, Visits]
    tasks: Mapping[str, Scores] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, cuda_graph: bool, tasks: Mapping[str, Scores] | None = None) -> Costs:
        """Read the costs from a record.

        Raises:
            ValueError: the record has no transitions with (or without) CUDA graphs.
        """
        transitions = [t for t in result_of(record).transitions if t.cuda_graph == cuda_graph]
        if not transitions:
            raise ValueError(f"{record.cell.id} has no transitions {'with' if cuda_graph else 'without'} CUDA graphs")
        visits = {(t.before, t.after): Visits.of(t) for t in transitions}
        return cls(record, cuda_graph, visits, tasks or {})

    @cached_property
    def device(self) -> list[DeviceTimes]:
        """Device times of the changes of this strategy."""
        return [times for times in result_of(self.record).device if times.cuda_graph == self.cuda_graph]

    @property
    def is_valid(self) -> bool:
        """Whether the outputs are correct. A strategy with wrong outputs cannot be chosen."""
        return not self.output_faults

    @property
    def measured_once(self) -> bool:
        """Whether some pair was measured only once (a run that only checks outputs): too few to compare strategies."""
        return min(len(visits.whole) for visits in self.visits.values()) < 2

    @cached_property
    def output_faults(self) -> str:
        """Why the outputs are wrong or unchecked; empty if they are correct."""
        checks = [parity for parity in result_of(self.record).parity if parity.cuda_graph == self.cuda_graph]
        faults = [parity_fault(parity) for parity in checks] or ["outputs after changes of shape were not checked"]
        return "; ".join(text for text in (*problems(self.record, set(self.shapes), self.tasks), *faults) if text)

    @cached_property
    def shapes(self) -> list[Size]:
        return sorted({after for _, after in self.visits}, key=lambda size: (size[1], size[0]))

    @cached_property
    def served(self) -> list[Size]:
        """For each shape of requests, the shape that runs it; a larger one where requests are padded."""
        return [self.shapes[fitting_shape(shape, self.shapes)] for shape in self.record.cell.shapes]

    @cached_property
    def replays(self) -> dict[float, float]:
        """Mean ns of a request by switching probability, for the replayed traces that have one."""
        return {
            switch: float(np.mean(m.samples))
            for m in self.record.measurements
            if (switch := switch_of(m.trace)) is not None and m.cuda_graph == self.cuda_graph and m.samples
        }

    @property
    def model_error(self) -> float:
        """Largest relative error of `means` against a replay; NaN without replays."""
        errors = [abs(mean / float(self.means.at(switch)) - 1) for switch, mean in self.replays.items()]
        return max(errors, default=float("nan"))

    @cached_property
    def means(self) -> Means:
        """Means over all visits."""
        return self._means({pair: np.arange(len(visits.whole))[None] for pair, visits in self.visits.items()}, True)

    def resampled(self, count: int = RESAMPLES, seed: int = 0) -> Means:
        """Return `count` bootstrap resamples of `means`: the visits of each pair are drawn with replacement."""
        generator = np.random.default_rng(seed)
        return self._means(
            {
                pair: generator.integers(0, len(visits.whole), (count, len(visits.whole)))
                for pair, visits in self.visits.items()
            },
            False,
        )

    def _means(self, drawn: Mapping[Pair, Array], single: bool) -> Means:
        """Return means over selected visits.

        Args:
            drawn: by pair, indices of visits [draws, visits].
            single: there is one draw; return numbers instead of arrays [draws].
        """

        def squeezed(values: Array) -> Array:
            return values[0] if single else values

        third = {pair: self.visits[pair].whole[:, 2][index].mean(axis=1) for pair, index in drawn.items()}
        steady = {
            shape: squeezed(np.mean([times for (_, after), times in third.items() if after == shape], axis=0))
            for shape in self.shapes
        }
        change = {
            pair: squeezed(self.visits[pair].extra[index].mean(axis=1))
            for pair, index in drawn.items()
            if pair[0] != pair[1]
        }
        return Means(steady, change, self.served)


@dataclass(frozen=True)
class BreakEven:
    """Break-even point of two strategies, with 95% bootstrap intervals (`_low` to `_high`).

    Attributes:
        switch: share of requests whose shape differs from the shape of the request before.
        per_second: changes of shape per second, if there is no gap between requests.
        certain: share of resamples that have a break-even point.
    """

    switch: float
    switch_low: float
    switch_high: float
    per_second: float
    per_second_low: float
    per_second_high: float
    certain: float


def break_even(first: Means, second: Means) -> Array:
    """Return the switching probability at which both take the same time; NaN where one is always faster."""
    offset = first.at(0) - second.at(0)
    slope = (first.at(1) - first.at(0)) - (second.at(1) - second.at(0))
    switch = -offset / np.where(slope == 0, np.nan, slope)
    return np.where((switch > 0) & (switch < 1), switch, np.nan)


def break_even_point(first: Costs, second: Costs) -> BreakEven | None:
    """Return the break-even point; None if one strategy is faster at every switching probability."""
    switch = float(break_even(first.means, second.means))
    if np.isnan(switch):
        return None
    first_means, second_means = first.resampled(seed=1), second.resampled(seed=2)
    drawn = break_even(first_means, second_means)
    per_second = 1e9 * drawn / first_means.at(drawn)
    exists = ~np.isnan(drawn)
    if not exists.any():
        return BreakEven(
            switch, *(float("nan"),) * 2, 1e9 * switch / float(first.means.at(switch)), *(float("nan"),) * 2, 0
        )
    mean_per_second = 1e9 * switch / float(first.means.at(switch))
    return BreakEven(switch, *bounds(drawn[exists]), mean_per_second, *bounds(per_second[exists]), float(exists.mean()))
