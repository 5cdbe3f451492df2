"""Keys of the range of profiles=dynamic, which several backends have in their own groups.

Needs CPython 3.10 and the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

from backends.config_key import key
from backends.options import Profiles, SharedKeys
from backends.value_checks import Refused


@dataclass
class RangeKeys:
    """Smallest, tuned and largest shape of profiles=dynamic."""

    min: list[int] = key(
        [],
        "Smallest [batch,sequence] of profiles=dynamic. Empty: batch 1 and sequence 16, or the shortest one if less.",
        in_help=True,
    )
    opt: list[int] = key(
        [],
        "Shape [batch,sequence] that profiles=dynamic is tuned for. Empty: the largest shape of the range.",
        in_help=True,
    )
    max: list[int] = key(
        [],
        "Largest [batch,sequence] of profiles=dynamic. Empty: the largest batch and sequence.",
        in_help=True,
    )


def resolved_range(keys: RangeKeys, shared: SharedKeys, group: str) -> RangeKeys:
    """Return `min`, `opt` and `max` with their defaults.

    Args:
        group: name of the group of the keys on the command line.

    Raises:
        Refused: a value is not a shape, or the three decrease.
    """
    largest = list(keys.max) or [max(shared.batch), max(shared.sequence)]
    sizes = {
        "min": list(keys.min) or [1, min(16, *shared.sequence)],
        "opt": list(keys.opt) or largest,
        "max": largest,
    }
    for name in ("min", "max", "opt"):  # opt may be max
        shape = sizes[name]
        if len(shape) != 2 or min(shape) < 1:
            raise Refused(f"{group}.{name}={shape} must be a batch and a sequence length, e.g. {group}.{name}=[1,128]")
    for axis, (lower, optimum, upper) in enumerate(zip(*sizes.values(), strict=True)):
        if not lower <= optimum <= upper:
            axis_name = ("batch", "sequence")[axis]
            raise Refused(
                f"{group}.min, {group}.opt and {group}.max must not decrease; their {axis_name} is "
                f"{lower}, {optimum}, {upper}"
            )
    return RangeKeys(**sizes)


def refuse_ranges(profiles: Profiles, backend: str) -> None:
    """Refuse profiles=ranges for a backend that has no key for them.

    Raises:
        Refused: `profiles` is ranges.
    """
    if profiles is Profiles.ranges:
        raise Refused(f"profiles=ranges is for backend=trt and trt_plugin; {backend} has the others: use one of them")
