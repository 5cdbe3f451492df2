"""What a record of suite=switching says of any trace: steady times, costs of changes, and where two strategies meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, permutations
from typing import Any

import numpy as np

from backends.base import Array, Shape, Unsupported
from suites.record import OK, Record
from suites.tables.rows import profiles_of
from suites.traffic import Size, smallest
from suites.validity import problems

Pair = tuple[Size, Size]


@dataclass(frozen=True)
class Costs:
    """One strategy, stepping plainly or with a CUDA graph for each shape.

    Attributes:
        steady: samples in ns, by shape, of a request that has the shape of the one before: inputs and a step.
        change: samples in ns, by ordered pair of shapes, of what a request costs beyond that for coming after another
            shape; of a shape after itself they lie around 0.
        parts: the samples that both were made of, by pair and part of suites/clock.py's Change.
    """

    record: Record
    cuda_graph: bool
    steady: Mapping[Size, Array]
    change: Mapping[Pair, Array]
    parts: Mapping[Pair, Mapping[str, Array]]

    @classmethod
    def of(cls, record: Record, cuda_graph: bool) -> Costs:
        """
        Raises:
            ValueError: the record has no transitions of this kind.
        """
        taken = [t for t in record.scores["transitions"] if not t["cold"] and t["cuda_graph"] == cuda_graph]
        if not taken:
            raise ValueError(f"{record.cell.id} has no transitions {'with' if cuda_graph else 'without'} CUDA graphs")
        parts: dict[Pair, Mapping[str, Array]] = {
            (_size(t["from"]), _size(t["to"])): {name: np.asarray(x, float) for name, x in t["samples"].items()}
            for t in taken
        }
        shapes = sorted({after for _, after in parts}, key=lambda size: (size[1], size[0]))
        copies = {shape: float(np.median(parts[shape, shape]["copy"])) for shape in shapes}
        steady = {
            shape: np.concatenate([x["again"] for (_, after), x in parts.items() if after == shape]) + copies[shape]
            for shape in shapes
        }
        change = {pair: x["shape"] + x["copy"] + x["first"] - x["again"] - copies[pair[1]] for pair, x in parts.items()}
        return cls(record, cuda_graph, steady, change, parts)

    @property
    def counts(self) -> bool:
        """Whether the strategy gave right outputs, without which it is no choice however fast."""
        return self.record.outcome == OK and not problems(self.record, set(self.shapes), {})

    @property
    def shapes(self) -> list[Size]:
        return list(self.steady)

    @cached_property
    def medians(self) -> tuple[dict[Size, float], dict[Pair, float]]:
        """Of the steady times, and of the costs of changes."""
        steady = {shape: float(np.median(samples)) for shape, samples in self.steady.items()}
        return steady, {pair: float(np.median(samples)) for pair, samples in self.change.items()}

    @cached_property
    def served(self) -> list[Size]:
        """The shape that is run for each shape that requests have: another one where they are padded up."""
        return [self.shapes[smallest(_size(asked), self.shapes)] for asked in self.record.cell.shapes]

    def at(self, switch: float) -> float:
        """The mean time in ns of a request, where one has another shape than the last with probability `switch`: any of
        the others, all as often."""
        steady, change = self.medians
        changes = [change[pair] for pair in permutations(self.served, 2)]
        return float(np.mean([steady[shape] for shape in self.served]) + (switch * np.mean(changes) if changes else 0))

    def of_trace(self, trace: Sequence[Size]) -> float:
        """The time in ns of all requests of a trace, one after another."""
        steady, change = self.medians
        return sum(steady[shape] for shape in trace) + sum(change[pair] for pair in pairwise(trace))

    def resampled(self, generator: np.random.Generator) -> Costs:
        """The same with every list of samples drawn anew from itself."""

        def draw(samples: Array) -> Array:
            return generator.choice(samples, len(samples))

        steady = {shape: draw(samples) for shape, samples in self.steady.items()}
        return replace(self, steady=steady, change={pair: draw(x) for pair, x in self.change.items()})


def break_even(one: Costs, other: Costs) -> float | None:
    """The switching probability at which both take as long; None where one is faster at every one."""
    still = one.at(0) - other.at(0)
    slope = (one.at(1) - one.at(0)) - (other.at(1) - other.at(0))
    switch = -still / slope if slope else -1.0
    return switch if 0 < switch < 1 else None


def kinds(record: Record, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """ "same shape", "other shape" or "other profile", by pair; without profiles the last does not occur."""
    profile = _profiles(record, sorted({shape for pair in pairs for shape in pair}))

    def kind(before: Size, after: Size) -> str:
        if before == after:
            return "same shape"
        return "other profile" if profile[before] != profile[after] else "other shape"

    return {pair: kind(*pair) for pair in pairs}


def _profiles(record: Record, shapes: Sequence[Size]) -> dict[Size, int]:
    from backends.tensorrt_.profiles import choose, plan_profiles

    options = record.cell.options
    if not profiles_of(record):
        return dict.fromkeys(shapes, 0)
    try:
        planned = plan_profiles([Shape(*shape) for shape in shapes], options)
        return {shape: choose(planned, Shape(*shape)) for shape in shapes}
    except Unsupported:
        return dict.fromkeys(shapes, 0)


def strategy(record: Record, cuda_graph: bool) -> str:
    """How requests are served, in words."""
    options: Mapping[str, Any] = record.cell.options
    parts = [record.cell.backend, record.cell.precision]
    parts += [text for text in (profiles_of(record), options.get("layout", "")) if text]
    parts += ["a context a profile"] if options.get("contexts") == "per_profile" else []
    parts += ["an engine a shape"] if options.get("engines") == "per_shape" else []
    parts += [f"padded up to {len(options['pad_to'])} shapes"] if "pad_to" in options else []
    parts += ["CUDA graphs"] if cuda_graph else []
    return ", ".join(parts)


def _size(pair: Sequence[int]) -> Size:
    return int(pair[0]), int(pair[1])
