"""The advice of suite=alignment: which multiple to pad to, and how much time that saves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suites.alignment.result import SEQUENCE, AlignmentResult, Sweep, padded_size

NEAR = 0.02
"""A change of at most this share counts as none."""

UNPADDED = 1
"""The multiple of sizes that stay as they are."""


@dataclass(frozen=True)
class Policy:
    """Padding to a multiple, over all sizes of a sweep.

    Attributes:
        multiple: UNPADDED or one of the sweep's multiples.
        milliseconds: time of a step by size of the request.
    """

    multiple: int
    milliseconds: dict[int, float]

    @property
    def mean(self) -> float:
        """Mean time over the sizes: that of requests whose sizes are equally frequent."""
        return statistics.fmean(self.milliseconds.values())


def policies(result: AlignmentResult, sweep: Sweep) -> list[Policy]:
    """Return no padding, and then each multiple of the sweep, unless the backend would remove the padding."""
    multiples = () if result.removes_padding and sweep.axis == SEQUENCE else sweep.multiples
    return [
        Policy(multiple, {size: padded_ms(result, sweep, size, multiple) for size in sweep.sizes})
        for multiple in (UNPADDED, *multiples)
    ]


def padded_ms(result: AlignmentResult, sweep: Sweep, size: int, multiple: int) -> float:
    """Return the time of a request of this size after padding to a multiple.

    Padded sequences need a mask, which can make attention slower, so the time with a mask counts for them.
    """
    target = padded_size(size, multiple)
    time = result.milliseconds(sweep, target, True) if target > size and sweep.axis == SEQUENCE else None
    if time is None:
        time = result.milliseconds(sweep, target)
    assert time is not None, "targets() names every size"
    return time


def penalty(result: AlignmentResult, sweep: Sweep, size: int, multiple: int) -> float | None:
    """Return the share by which a size is slower (or, below 0, faster) than the next multiple without padding tokens.

    None for a size that is a multiple.
    """
    if size % multiple == 0:
        return None
    own, aligned = result.milliseconds(sweep, size), result.milliseconds(sweep, padded_size(size, multiple))
    assert own is not None
    assert aligned is not None
    return own / aligned - 1


def change(policy: Policy, plain: Policy) -> float:
    """Return the change of the mean time by padding."""
    return policy.mean / plain.mean - 1


def place(sweep: Sweep) -> str:
    """Return the sizes of a sweep in words."""
    sizes = f"{sweep.sizes[0]} to {sweep.sizes[-1]}"
    return f"sequence lengths {sizes} at batch {sweep.other}" if sweep.axis == SEQUENCE else (
        f"batch sizes {sizes} at sequence length {sweep.other}"
    )  # fmt: skip


def sentences(result: AlignmentResult) -> Iterator[str]:
    """Yield one sentence of advice for each sweep."""
    for sweep in result.sweeps:
        plain, *padded = policies(result, sweep)
        words = _padding(sweep, plain, padded) if padded else _without_padding(result, sweep)
        yield f"{place(sweep).capitalize()}: {words}."
    if unsteady := sum(not shape.steady for shape in result.shapes):
        yield f"{unsteady} of {len(result.shapes)} times were not steady, so small changes may be noise."


def _padding(sweep: Sweep, plain: Policy, padded: Sequence[Policy]) -> str:
    best = min(padded, key=lambda policy: policy.mean)
    saved, noun = change(best, plain), "sequences" if sweep.axis == SEQUENCE else "batches"
    if saved >= -NEAR:
        return f"do not pad {noun}; padding to a multiple of {best.multiple} changes the mean time by {saved:+.1%}"
    gains = {size: best.milliseconds[size] / time - 1 for size, time in plain.milliseconds.items()}
    most = min(gains, key=lambda size: gains[size])
    return (
        f"pad {noun} to a multiple of {best.multiple}; the mean time changes by {saved:+.1%}, that of size {most} by "
        f"{gains[most]:+.1%}"
    )


def _without_padding(result: AlignmentResult, sweep: Sweep) -> str:
    """Return the mean penalty of sizes that are no multiple of the smallest multiple."""
    if not sweep.multiples:
        return "the model has too few positions for longer sequences, so none was padded"
    multiple = sweep.multiples[0]
    penalties = [found for size in sweep.sizes if (found := penalty(result, sweep, size, multiple)) is not None]
    if not penalties:
        return f"all sizes are multiples of {multiple}"
    mean = statistics.fmean(penalties)
    return (
        f"the backend computes no padding, so do not pad; a length that is no multiple of {multiple} takes {mean:+.1%} "
        "against the next multiple on average"
    )
