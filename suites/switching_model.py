"""What a record of suite=switching says of any trace: steady times, costs of changes, and where two strategies meet.

All of it is by means, with every sample in them: what comes once in a hundred requests is part of what a hundred take.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, permutations
from typing import Any

import numpy as np

from backends.base import Array
from suites.record import REPLAY, Record
from suites.stats import bounds
from suites.switching_parity import complaint
from suites.traffic import Size, smallest
from suites.validity import Scores, problems

Pair = tuple[Size, Size]

RESAMPLES = 500


@dataclass(frozen=True)
class Visits:
    """What three requests of a shape after one of another took, often: ns, an array for each kind.

    Attributes:
        parts: [visits, 3] of making ready for the shape, by name, of each of the requests.
        copy, enqueue, step, whole: [visits, 3] likewise; `replayed`, whether it launched a graph.
        earlier: the shape before the one that they came after.
    """

    parts: Mapping[str, Array]
    copy: Array
    enqueue: Array
    step: Array
    whole: Array
    replayed: Array
    earlier: Sequence[Size]

    @classmethod
    def of(cls, transition: Mapping[str, Any]) -> Visits:
        found = transition["samples"]
        arrays = {name: np.asarray(found[name], float) for name in ("copy", "enqueue", "step", "whole", "replayed")}
        parts = {name: np.asarray(values, float) for name, values in found["parts"].items()}
        return cls(parts, **arrays, earlier=[_size(size) for size in transition["earlier"]])

    @property
    def over(self) -> Array:
        """What the first request took beyond the third, which found the shape as it left it: the cost of the change."""
        return np.asarray(self.whole[:, 0] - self.whole[:, 2])


@dataclass(frozen=True)
class Trace:
    """How often each shape and each change comes in a trace of so many requests."""

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
        steady: by shape, of a request that has the shape of the one before: shape, inputs and a step.
        change: by ordered pair of different shapes, what a request takes beyond that after one of the other shape.
        served: the shape that is run for each shape that requests have.
    """

    steady: Mapping[Size, Array]
    change: Mapping[Pair, Array]
    served: Sequence[Size]

    def at(self, switch: float | Array) -> Array:
        """Of a request, where one has another shape than the last with probability `switch`: any of the others, all as
        often."""
        pairs = list(permutations(self.served, 2))
        # Requests of two shapes that run as one change nothing.
        change = sum(self.change[pair] for pair in pairs if pair in self.change) / max(len(pairs), 1)
        steady = np.mean([self.steady[shape] for shape in self.served], axis=0)
        return np.asarray(steady + switch * change)

    def of_trace(self, trace: Trace) -> Array:
        """Of all requests of a trace, one after another."""
        steady = sum(count * self.steady[shape] for shape, count in trace.shapes.items())
        return np.asarray(steady + sum(count * self.change[pair] for pair, count in trace.changes.items()))


@dataclass(frozen=True)
class Costs:
    """One strategy, stepping plainly or with CUDA graphs that are kept; `tasks` are the scores of its path by task."""

    record: Record
    cuda_graph: bool
    visits: Mapping[Pair, Visits]
    tasks: Mapping[str, Scores] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Record, cuda_graph: bool, tasks: Mapping[str, Scores] | None = None) -> Costs:
        """
        Raises:
            ValueError: the record has no transitions of this kind.
        """
        taken = [t for t in record.scores["transitions"] if t["cuda_graph"] == cuda_graph]
        if not taken:
            raise ValueError(f"{record.cell.id} has no transitions {'with' if cuda_graph else 'without'} CUDA graphs")
        visits = {(_size(t["from"]), _size(t["to"])): Visits.of(t) for t in taken}
        return cls(record, cuda_graph, visits, tasks or {})

    @property
    def counts(self) -> bool:
        """Whether the strategy gave right outputs, without which it is no choice however fast."""
        return not self.wrong

    @property
    def single(self) -> bool:
        """Whether some change was taken but once, as where outputs alone were to be checked: too little to judge by."""
        return min(len(visits.whole) for visits in self.visits.values()) < 2

    @cached_property
    def wrong(self) -> str:
        """Why it is no choice; empty if it is one."""
        checked = [one for one in self.record.scores["parity"] if one["cuda_graph"] == self.cuda_graph]
        unequal = [complaint(one) for one in checked] or ["outputs after changes were not checked"]
        return "; ".join(text for text in (*problems(self.record, set(self.shapes), self.tasks), *unequal) if text)

    @cached_property
    def shapes(self) -> list[Size]:
        return sorted({after for _, after in self.visits}, key=lambda size: (size[1], size[0]))

    @cached_property
    def served(self) -> list[Size]:
        """The shape that is run for each shape that requests have: another one where they are padded up."""
        return [self.shapes[smallest(_size(asked), self.shapes)] for asked in self.record.cell.shapes]

    @cached_property
    def replays(self) -> dict[float, float]:
        """Mean ns of a request by switching probability, of the traces that were replayed with one."""
        traces = {
            m.phase.removeprefix(f"{REPLAY} switch="): m.samples
            for m in self.record.measurements
            if m.phase.startswith(f"{REPLAY} switch=") and m.cuda_graph == self.cuda_graph and m.samples
        }
        return {float(switch): float(np.mean(samples)) for switch, samples in traces.items()}

    @property
    def misfit(self) -> float:
        """The largest share by which a replay takes more or less than `means` say; NaN where there was none."""
        apart = [abs(mean / float(self.means.at(switch)) - 1) for switch, mean in self.replays.items()]
        return max(apart, default=float("nan"))

    @cached_property
    def means(self) -> Means:
        return self._means({pair: np.arange(len(visits.whole))[None] for pair, visits in self.visits.items()}, True)

    def resampled(self, count: int = RESAMPLES, seed: int = 0) -> Means:
        """The same from the visits of each pair drawn anew from themselves, `count` times."""
        generator = np.random.default_rng(seed)
        return self._means(
            {p: generator.integers(0, len(v.whole), (count, len(v.whole))) for p, v in self.visits.items()}, False
        )

    def _means(self, drawn: Mapping[Pair, Array], single: bool) -> Means:
        """Over the visits named by number [draws, visits] of each pair; if `single`, of the only draw."""

        def settle(values: Array) -> Array:
            return values[0] if single else values

        third = {pair: self.visits[pair].whole[:, 2][index].mean(axis=1) for pair, index in drawn.items()}
        steady = {
            shape: settle(np.mean([x for (_, after), x in third.items() if after == shape], axis=0))
            for shape in self.shapes
        }
        change = {
            pair: settle(self.visits[pair].over[index].mean(axis=1))
            for pair, index in drawn.items()
            if pair[0] != pair[1]
        }
        return Means(steady, change, self.served)


@dataclass(frozen=True)
class Meeting:
    """Where two strategies take as long, with 95% bootstrap intervals.

    Attributes:
        switch: the share of requests that have another shape than the one before; `switch_low` to `switch_high`.
        per_second: changes of shape in a second, where requests follow one another without a gap.
        certain: the share of resamplings in which they meet at all.
    """

    switch: float
    switch_low: float
    switch_high: float
    per_second: float
    per_second_low: float
    per_second_high: float
    certain: float


def break_even(one: Means, other: Means) -> Array:
    """The switching probability at which both take as long; NaN where one is faster at every one."""
    still = one.at(0) - other.at(0)
    slope = (one.at(1) - one.at(0)) - (other.at(1) - other.at(0))
    switch = -still / np.where(slope == 0, np.nan, slope)
    return np.where((switch > 0) & (switch < 1), switch, np.nan)


def meeting(one: Costs, other: Costs) -> Meeting | None:
    """None where one is faster at every share of changes."""
    switch = float(break_even(one.means, other.means))
    if np.isnan(switch):
        return None
    first, second = one.resampled(seed=1), other.resampled(seed=2)
    drawn = break_even(first, second)
    per_second = 1e9 * drawn / first.at(drawn)
    met = ~np.isnan(drawn)
    if not met.any():
        return Meeting(
            switch, *(float("nan"),) * 2, 1e9 * switch / float(one.means.at(switch)), *(float("nan"),) * 2, 0
        )
    now = 1e9 * switch / float(one.means.at(switch))
    return Meeting(switch, *bounds(drawn[met]), now, *bounds(per_second[met]), float(met.mean()))


def _size(pair: Sequence[int]) -> Size:
    return int(pair[0]), int(pair[1])
