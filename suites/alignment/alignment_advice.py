"""The advice of suite=alignment: which multiple to pad to, and how much time that saves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from suites.alignment.result import SEQUENCE, AlignmentResult, SizeVariant, Sweep, padded_size

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
    """Yield one sentence of advice for each sweep and for each padded size of the model."""
    for sweep in result.sweeps:
        plain, *padded = policies(result, sweep)
        words = _padding(result, sweep, padded, plain) if padded else _without_padding(result, sweep)
        yield f"{place(sweep).capitalize()}: {words}."
    yield from model_sentences(result)
    if unsteady := sum(not shape.steady for shape in result.shapes):
        yield f"{unsteady} of {len(result.shapes)} times were not steady, so small changes may be noise."


def variant_change(result: AlignmentResult, variant: SizeVariant) -> float | None:
    """Return the change of the time of all shapes against the mean of the model's own rounds; None without times."""
    plain = [_total(model) for model in result.models]
    return _total(variant) / statistics.fmean(plain) - 1 if plain and variant.shapes else None


def noise(result: AlignmentResult) -> float:
    """Return the difference of the rounds that measured the same model, as a share; 0 if only one did."""
    plain = [_total(model) for model in result.models]
    return max(plain) / min(plain) - 1 if plain else 0.0


def _total(variant: SizeVariant) -> float:
    return sum(shape.milliseconds for shape in variant.shapes)


def model_sentences(result: AlignmentResult) -> Iterator[str]:
    """Yield one sentence for each size of the model that was padded, on its fastest variant."""
    by_name: dict[str, list[tuple[float, SizeVariant]]] = {}
    for variant in result.variants:
        changed = variant_change(result, variant) if variant.name else None
        if changed is not None:
            by_name.setdefault(variant.name, []).append((changed, variant))
    for name, found in by_name.items():
        changed, variant = min(found, key=lambda pair: pair[0])
        yield f"{name} {variant.size}: {_model_advice(changed, variant, noise(result))}."


def _model_advice(changed: float, variant: SizeVariant, least: float) -> str:
    figure = f"{variant.value} {effect(changed, 'the time of a step')}"
    if least > NEAR:
        figure += f", and two rounds of the same model differ by {least:.1%}"
    if variant.name == "vocab_size":
        return f"do not pad it, because no product uses it: the embedding is a lookup; {figure}"
    if changed >= -max(NEAR, least):
        return f"do not pad it; {figure}"
    if variant.exact:
        return f"pad it with zeros, which keeps the outputs; {figure}"
    return f"choose {variant.value} before training, because padding is not exact; {figure}"


def effect(changed: float, whole: str) -> str:
    """Return a change as words: "adds 3.0% to the time" or "saves 3.0% of the time"."""
    return f"adds {changed:.1%} to {whole}" if changed >= 0 else f"saves {-changed:.1%} of {whole}"


def _padding(result: AlignmentResult, sweep: Sweep, padded: Sequence[Policy], plain: Policy) -> str:
    best = min(padded, key=lambda policy: policy.mean)
    changed, noun = change(best, plain), "sequences" if sweep.axis == SEQUENCE else "batches"
    spread = f", and the two passes differ by {result.noise:.1%}" if result.noise > NEAR else ""
    figure = effect(changed, "the mean time")
    if changed >= -max(NEAR, result.noise):
        return f"do not pad {noun}; padding to a multiple of {best.multiple} {figure}{spread}"
    gains = {size: best.milliseconds[size] / time - 1 for size, time in plain.milliseconds.items()}
    most = min(gains, key=lambda size: gains[size])
    return f"pad {noun} to a multiple of {best.multiple}; it {figure}, and {-gains[most]:.1%} at size {most}{spread}"


def _without_padding(result: AlignmentResult, sweep: Sweep) -> str:
    """Return the mean penalty of sizes that are no multiple of the smallest multiple."""
    if not sweep.multiples:
        return "no multiple is near enough to pad to"
    multiple = sweep.multiples[0]
    penalties = [found for size in sweep.sizes if (found := penalty(result, sweep, size, multiple)) is not None]
    if not penalties:
        return f"all sizes are multiples of {multiple}"
    mean = statistics.fmean(penalties)
    return (
        f"the backend computes no padding, so do not pad; a length that is no multiple of {multiple} takes on average "
        f"{abs(mean):.1%} {'more' if mean > 0 else 'less'} than the next multiple"
    )
