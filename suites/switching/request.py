"""Options of suite=switching: the shapes of requests, the shapes that are built, and the traces to replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from backends.base import Shape
from suites.asking.suite_request import RequestContext, SuiteRequest
from suites.records.cell import short_digest
from suites.schema.refusals import Refused
from suites.switching.result import Size
from suites.switching.suite import SwitchingQuestion, Traffic
from suites.switching.traffic import (
    MAX_REQUESTS,
    blocks_of_runs,
    draw_trace,
    fitting_shape,
    split_blocks,
    switch_trace,
    trace_from_file,
)


@dataclass(frozen=True)
class SwitchingOptions:
    """Resolved options of suite=switching.

    Attributes:
        requested_shapes: the shapes of requests.
        built_shapes: the shapes that are built and run.
        traffic: traces by name: blocks of stretches of requests, each request an index in `requested_shapes`.
        repeats: of each ordered pair of built shapes, at most.
        choice: name of the distribution of lengths.
    """

    requested_shapes: tuple[Shape, ...]
    built_shapes: tuple[Shape, ...]
    traffic: Traffic
    repeats: int
    choice: str


def suite_request(context: RequestContext) -> SuiteRequest:
    """Add the traffic. Its shapes may be padded to others, which are built and run.

    Raises:
        Refused: see `resolve_switching`.
    """
    config = context.config
    resolved = resolve_switching(context)
    question = SwitchingQuestion(resolved.requested_shapes, resolved.traffic, resolved.repeats, config.suite.starts)
    lengths = {"traffic": short_digest(resolved.traffic), "repeats": resolved.repeats, "choice": resolved.choice}
    pad_to = [[shape.batch, shape.sequence] for shape in resolved.built_shapes]
    return SuiteRequest(
        context.shapes,
        resolved.built_shapes,
        question,
        lengths,
        {"pad_to": pad_to} if config.switching.pad_to else {},
        effort={name: getattr(config.suite, name) for name in ("pairs_s", "replay_s")},
    )


def resolve_switching(context: RequestContext) -> SwitchingOptions:
    """Resolve the options and check them.

    Raises:
        Refused: a trace cannot be read or is too long, or a shape of requests does not fit into any built shape.
    """
    config, lengths = context.config, context.lengths
    options = config.switching
    requested: list[Size] = [(shape.batch, shape.sequence) for shape in context.shapes]
    built = _padded_shapes(options.pad_to, context.positions) or requested
    try:
        for shape in requested:
            fitting_shape(shape, built)
    except ValueError as error:
        raise Refused(f"switching.pad_to: {error}") from None
    count = options.requests
    if count > MAX_REQUESTS:
        raise Refused(f"switching.requests must be at most {MAX_REQUESTS}, not {count}")
    traffic: dict[str, list[list[list[int]]]] = {}
    for switch in options.switch:
        if not 0 <= switch <= 1:
            raise Refused(f"switching.switch is a probability; it must be between 0 and 1, not {switch}")
        traffic[switch_trace(switch)] = blocks_of_runs(count, switch, len(requested), config.seed)
    if lengths.distribution == "texts":
        raise Refused(
            "suite=switching draws lengths without a tokenizer, so it cannot use lengths of texts; "
            "use lengths=stsb, squad_like, uniform or file"
        )
    if lengths.distribution != "full":
        traffic[config.lengths.name] = split_blocks(draw_trace(count, lengths, requested, config.seed))
    if options.trace:
        traffic["trace"] = split_blocks(trace_from_file(options.trace, requested))
    return SwitchingOptions(
        tuple(Shape(*size) for size in requested),
        tuple(Shape(*size) for size in built),
        _frozen(traffic) if count else {},
        options.repeats,
        config.lengths.name,
    )


def _frozen(traffic: Mapping[str, list[list[list[int]]]]) -> Traffic:
    return {name: tuple(tuple(map(tuple, block)) for block in blocks) for name, blocks in traffic.items()}


def _padded_shapes(pad_to: Sequence[Sequence[int]], positions: int) -> list[Size]:
    for size in pad_to:
        if len(size) != 2 or min(size) < 1:
            raise Refused(f"switching.pad_to has {list(size)}; each entry must be [batch,sequence], both at least 1")
        if size[1] > positions:
            raise Refused(
                f"switching.pad_to has {list(size)}, but the model has {positions} positions; use a shorter sequence"
            )
    return sorted({(batch, sequence) for batch, sequence in pad_to}, key=lambda size: (size[1], size[0]))
