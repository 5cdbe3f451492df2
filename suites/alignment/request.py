"""The request of suite=alignment: sizes around the batch sizes and sequence lengths of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from backends.base import Shape, Unsupported
from backends.options import Layout
from backends.profiles import ProfileSettings, plan_profiles
from backends.registry import describe
from suites.alignment.result import BATCH, SEQUENCE, Sweep, padded_size
from suites.alignment.size_variants import size_variants
from suites.alignment.suite import AlignmentQuestion, TimedRun
from suites.asking.resolve_options import backend_options
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused

SHORTEST = {SEQUENCE: 2, BATCH: 1}

MOST_PROFILES = 8
"""Most profiles of an engine. Each one takes a minute or more of the build."""


def suite_request(context: RequestContext) -> SuiteRequest:
    """
    Raises:
        Refused: sequences are not full, no size is left to measure, or an engine has too many or too few profiles.
    """
    config, options = context.config, context.config.alignment
    if context.lengths.distribution != "full":
        raise Refused(
            f"suite=alignment chooses the lengths of sequences itself; leave lengths={config.lengths.name} out"
        )
    sweeps = tuple(_sweeps(context))
    packs = describe(config.backend).packs_tokens and config.layout is Layout.packed
    runs = {TimedRun(Shape(*sweep.shape(size))) for sweep in sweeps for size in sweep.targets()}
    if not packs:
        runs |= {TimedRun(shape, True) for shape in _padded_shapes(sweeps)}
    ordered = tuple(sorted(runs, key=lambda run: (run.shape, run.padded)))
    shapes = tuple(sorted({run.shape for run in ordered}))
    _check_profiles(config, shapes)
    swept: dict[str, object] = {
        "sequence_range": options.sequence_range,
        "batch_range": options.batch_range,
        "multiples": sorted(set(options.multiples)),
    }
    variants = size_variants(config)
    swept |= {"models": [[variant.name, variant.value] for variant in variants if variant.name]} if variants else {}
    question = AlignmentQuestion(sweeps, ordered, packs, context.shapes, variants)
    return SuiteRequest(context.shapes, shapes, question, options=swept)


def _sweeps(context: RequestContext) -> Iterator[Sweep]:
    """Yield a sweep of sequence lengths and one of batch sizes around each shape, if their ranges are not 0.

    Raises:
        Refused: both ranges are 0.
    """
    options = context.config.alignment
    if not options.sequence_range and not options.batch_range:
        raise Refused("alignment.sequence_range and alignment.batch_range are both 0; set one of them")
    multiples = tuple(sorted(set(options.multiples)))
    for shape in context.shapes:
        if options.sequence_range:
            sizes = _around(SEQUENCE, shape.sequence, options.sequence_range, context.positions)
            yield Sweep(SEQUENCE, shape.batch, sizes, _near(sizes, multiples, context.positions))
        if options.batch_range:
            sizes = _around(BATCH, shape.batch, options.batch_range, shape.batch + options.batch_range)
            yield Sweep(BATCH, shape.sequence, sizes, _near(sizes, multiples, 2 * sizes[-1]))


def _near(sizes: tuple[int, ...], multiples: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the multiples that pad no size beyond `most`, nor beyond twice the largest size."""
    return tuple(each for each in multiples if padded_size(sizes[-1], each) <= min(most, 2 * sizes[-1]))


def _around(axis: str, centre: int, width: int, most: int) -> tuple[int, ...]:
    return tuple(range(max(SHORTEST[axis], centre - width), min(most, centre + width) + 1))


def _padded_shapes(sweeps: tuple[Sweep, ...]) -> Iterator[Shape]:
    """Yield the shapes that shorter sequences are padded to."""
    for sweep in sweeps:
        if sweep.axis == SEQUENCE:
            for size in sweep.targets():
                if any(size % multiple == 0 for multiple in sweep.multiples):
                    yield Shape(*sweep.shape(size))


def _check_profiles(config: RunConfig, shapes: tuple[Shape, ...]) -> None:
    """
    Raises:
        Refused: the engine would have too many profiles, or a shape is in no profile.
    """
    options = backend_options(config)
    if not getattr(options, "min", []):  # the backend, or its provider, has no profiles
        return
    group = next(name for name in describe(config.backend).groups if hasattr(getattr(config, name), "min"))
    try:
        profiles = plan_profiles(shapes, cast(ProfileSettings, options), group)
    except Unsupported:
        largest = Shape(max(shape.batch for shape in shapes), max(shape.sequence for shape in shapes))
        smallest = Shape(min(shape.batch for shape in shapes), min(shape.sequence for shape in shapes))
        raise Refused(
            f"suite=alignment measures shapes from {smallest} to {largest}; use profiles=dynamic with "
            f"{group}.min=[1,{min(16, smallest.sequence)}] {group}.max=[{largest.batch},{largest.sequence}]"
        ) from None
    if len(profiles) > MOST_PROFILES:
        raise Refused(
            f"suite=alignment has {len(profiles)} shapes here, and an engine with as many profiles builds for hours; "
            "use profiles=dynamic"
        )
