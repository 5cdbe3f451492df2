"""Options of suite=switching: the shapes of requests, the shapes that are built, and the traces to replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.schema.config import RunConfig
from suites.schema.refusals import Refused
from suites.switching.traffic import (
    MAX_REQUESTS,
    Size,
    blocks_of_runs,
    draw_trace,
    fitting_shape,
    split_blocks,
    trace_from_file,
)


@dataclass(frozen=True)
class SwitchingOptions:
    """Resolved options of suite=switching.

    Attributes:
        asked: [batch, sequence] of each shape of requests.
        held: [batch, sequence] of each shape that is built and run.
        traffic: traces by name: blocks of stretches of requests, each request an index in `asked`.
        repeats: of each ordered pair of built shapes, at most.
        choice: name of the distribution of lengths.
    """

    requested_shapes: list[list[int]]
    built_shapes: list[list[int]]
    traffic: Mapping[str, list[list[list[int]]]]
    repeats: int
    choice: str


def resolve_switching(
    config: RunConfig, shapes: Sequence[Sequence[int]], lengths: Mapping[str, Any], positions: int
) -> SwitchingOptions:
    """Resolve the options and check them.

    Args:
        shapes: [batch, sequence] of each shape of requests.
        lengths: the distribution of lengths, as `lengths_of` in suites/asking/resolve_options.py returns it.
        positions: the largest sequence length of the model.

    Raises:
        Refused: a trace cannot be read or is too long, or a shape of requests does not fit into any built shape.
    """
    options = config.switching
    requested: list[Size] = [(batch, sequence) for batch, sequence in shapes]
    built = _padded_shapes(options.pad_to, positions) or requested
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
        traffic[f"switch={switch:g}"] = blocks_of_runs(count, switch, len(requested), config.seed)
    if lengths["distribution"] == "texts":
        raise Refused(
            "suite=switching draws lengths without a tokenizer, so it cannot use lengths of texts; "
            "use lengths=stsb, squad_like, uniform or file"
        )
    if lengths["distribution"] != "full":
        traffic[config.lengths.name] = split_blocks(draw_trace(count, lengths, requested, config.seed))
    if options.trace:
        traffic["trace"] = split_blocks(trace_from_file(options.trace, requested))
    return SwitchingOptions(
        [list(size) for size in requested],
        [list(size) for size in built],
        traffic if count else {},
        options.repeats,
        config.lengths.name,
    )


def _padded_shapes(pad_to: Sequence[Sequence[int]], positions: int) -> list[Size]:
    for size in pad_to:
        if len(size) != 2 or min(size) < 1:
            raise Refused(f"switching.pad_to has {list(size)}; each entry must be [batch,sequence], both at least 1")
        if size[1] > positions:
            raise Refused(
                f"switching.pad_to has {list(size)}, but the model has {positions} positions; use a shorter sequence"
            )
    return sorted({(batch, sequence) for batch, sequence in pad_to}, key=lambda size: (size[1], size[0]))
