"""Optimization profiles: the ranges of shapes that an engine is tuned for. Pure functions; no TensorRT here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.base import Shape, Unsupported


@dataclass(frozen=True)
class Profile:
    """Shapes from `low` to `high`, [batch, sequence] both included, tuned for `best`."""

    low: Shape
    best: Shape
    high: Shape

    def holds(self, shape: Shape) -> bool:
        batch = self.low.batch <= shape.batch <= self.high.batch
        return batch and self.low.sequence <= shape.sequence <= self.high.sequence

    @property
    def width(self) -> int:
        """How many shapes it holds."""
        return (self.high.batch - self.low.batch + 1) * (self.high.sequence - self.low.sequence + 1)

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low}..{self.high}"


def plan_profiles(shapes: Sequence[Shape], options: Mapping[str, Any]) -> tuple[Profile, ...]:
    """The profiles of an engine that is to run `shapes`.

    Args:
        options: `profiles`: "dynamic" (one range, `min` to `max`, tuned for `opt`), "per_shape" (one fixed profile a
            shape), "buckets" (`min` to the largest shape cut at the batches and sequences asked for) or "ranges" (those
            of `ranges`, each [batch, sequence, batch, sequence] from the smallest to the largest shape); the last two
            tuned for their upper ends; `min`, `opt` and `max` as [batch, sequence].

    Raises:
        Unsupported: a shape is in none of them, or a profile of `ranges` holds no shape.
    """
    low, best, high = (Shape(*options[name]) for name in ("min", "opt", "max"))
    if options["profiles"] == "per_shape":
        profiles = tuple(Profile(shape, shape, shape) for shape in sorted(set(shapes)))
    elif options["profiles"] == "dynamic":
        profiles = (Profile(low, best, high),)
    elif options["profiles"] == "ranges":
        ends = [(Shape(*four[:2]), Shape(*four[2:])) for four in options["ranges"]]
        profiles = tuple(Profile(smallest, largest, largest) for smallest, largest in ends)
        for profile in profiles:
            if not any(profile.holds(shape) for shape in shapes):
                raise Unsupported(f"the optimization profile {profile} of trt.ranges holds none of the shapes to run")
    else:
        batches = _ranges(low.batch, [shape.batch for shape in shapes])
        sequences = _ranges(low.sequence, [shape.sequence for shape in shapes])
        profiles = tuple(
            Profile(Shape(b, s), Shape(most, longest), Shape(most, longest))
            for s, longest in sequences
            for b, most in batches
        )
    for shape in shapes:
        choose(profiles, shape)
    return profiles


def choose(profiles: Sequence[Profile], shape: Shape) -> int:
    """The narrowest profile that holds `shape`, by its index.

    Raises:
        Unsupported: none does.
    """
    fitting = [(profile.width, index) for index, profile in enumerate(profiles) if profile.holds(shape)]
    if not fitting:
        ranges = ", ".join(str(profile) for profile in profiles)
        raise Unsupported(
            f"shape {shape} is in no optimization profile ({ranges}); widen trt.min and trt.max, or trt.ranges"
        )
    return min(fitting)[1]


def _ranges(lowest: int, edges: Sequence[int]) -> list[tuple[int, int]]:
    """[lowest, e1], [e1 + 1, e2], ... for the sorted edges."""
    ranges, start = [], lowest
    for edge in sorted(set(edges)):
        if edge >= start:
            ranges.append((start, edge))
            start = edge + 1
    return ranges
