"""Optimization profiles, the ranges of shapes that an engine is tuned for. Pure functions without TensorRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol

from backends.base import Shape, Unsupported
from backends.options import Profiles

JSON_NAMES = ("low", "best", "high")
"""Names of the min, opt and max shape in cache keys."""


class ProfileSettings(Protocol):
    """Options that determine the profiles; see `plan_profiles`."""

    profiles: Profiles
    min: list[int]
    opt: list[int]
    max: list[int]

    @property
    def ranges(self) -> list[list[int]]: ...


@dataclass
class RecordedProfiles:
    """The same options of a cell in a record."""

    profiles: Profiles
    min: list[int]
    opt: list[int]
    max: list[int]
    ranges: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class Profile:
    """Range of shapes [batch, sequence] from `min` to `max`, both included, tuned for `opt`."""

    min: Shape
    opt: Shape
    max: Shape

    def contains(self, shape: Shape) -> bool:
        batch = self.min.batch <= shape.batch <= self.max.batch
        return batch and self.min.sequence <= shape.sequence <= self.max.sequence

    @property
    def width(self) -> int:
        """Number of shapes in the profile."""
        return (self.max.batch - self.min.batch + 1) * (self.max.sequence - self.min.sequence + 1)

    def __str__(self) -> str:
        return str(self.min) if self.min == self.max else f"{self.min}..{self.max}"

    def to_json(self) -> dict[str, dict[str, int]]:
        """Return the profile as it is in cache keys. Other names would not find the cached plans."""
        return {name: asdict(shape) for name, shape in zip(JSON_NAMES, (self.min, self.opt, self.max), strict=True)}

    @classmethod
    def from_json(cls, data: Mapping[str, Mapping[str, int]]) -> Profile:
        return cls(*(Shape(**data[name]) for name in JSON_NAMES))


def plan_profiles(shapes: Sequence[Shape], options: ProfileSettings, group: str = "trt") -> tuple[Profile, ...]:
    """Return the profiles of an engine that runs `shapes`.

    Args:
        options: `min`, `opt` and `max` are [batch, sequence]. `profiles` is one of:
            "dynamic": one range from `min` to `max`, tuned for `opt`.
            "per_shape": one fixed profile per shape.
            "buckets": the range from `min` to the largest shape, cut at the batches and sequences of `shapes`. Each
                profile is tuned for its largest shape.
            "ranges": the profiles in `ranges`, each [batch, sequence, batch, sequence] from the smallest to the largest
                shape. Each profile is tuned for its largest shape.
        group: name of the group of these options on the command line.

    Raises:
        Unsupported: a shape is in no profile, or a profile of `ranges` contains none of the shapes.
    """
    min_shape, opt_shape, max_shape = (Shape.parse(getattr(options, name)) for name in ("min", "opt", "max"))
    if options.profiles is Profiles.per_shape:
        profiles = tuple(Profile(shape, shape, shape) for shape in sorted(set(shapes)))
    elif options.profiles is Profiles.dynamic:
        profiles = (Profile(min_shape, opt_shape, max_shape),)
    elif options.profiles is Profiles.ranges:
        ranges = [(Shape.parse(sizes[:2]), Shape.parse(sizes[2:])) for sizes in options.ranges]
        profiles = tuple(Profile(smallest, largest, largest) for smallest, largest in ranges)
        for profile in profiles:
            if not any(profile.contains(shape) for shape in shapes):
                raise Unsupported(
                    f"the optimization profile {profile} of trt.ranges contains none of the requested shapes; remove it"
                )
    else:
        batches = _ranges(min_shape.batch, [shape.batch for shape in shapes])
        sequences = _ranges(min_shape.sequence, [shape.sequence for shape in shapes])
        profiles = tuple(
            Profile(Shape(batch, sequence), Shape(largest, longest), Shape(largest, longest))
            for sequence, longest in sequences
            for batch, largest in batches
        )
    for shape in shapes:
        choose_profile(profiles, shape, group)
    return profiles


def choose_profile(profiles: Sequence[Profile], shape: Shape, group: str = "trt") -> int:
    """Return the index of the profile that contains `shape` and has the fewest shapes.

    Raises:
        Unsupported: no profile contains `shape`.
    """
    fitting = [(profile.width, index) for index, profile in enumerate(profiles) if profile.contains(shape)]
    if not fitting:
        ranges = ", ".join(str(profile) for profile in profiles)
        others = ", or trt.ranges" if group == "trt" else ""
        raise Unsupported(
            f"shape {shape} is in no optimization profile ({ranges}); widen {group}.min and {group}.max{others}"
        )
    return min(fitting)[1]


def _ranges(lowest: int, edges: Sequence[int]) -> list[tuple[int, int]]:
    """Return [lowest, e1], [e1 + 1, e2], ... for the sorted edges."""
    ranges, start = [], lowest
    for edge in sorted(set(edges)):
        if edge >= start:
            ranges.append((start, edge))
            start = edge + 1
    return ranges
