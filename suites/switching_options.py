"""What the options of suite=switching resolve to: the shapes that are held, and the traces over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.checks import Refused, at_least
from suites.config import RunConfig
from suites.traffic import MOST, Size, blocks_of_runs, cut, drawn, from_file, smallest


@dataclass(frozen=True)
class Switching:
    """
    Attributes:
        asked: [batch, sequence] of each shape that requests have.
        held: of each that is built and run.
        traffic: by name the blocks of a trace, each of stretches of shapes by index among those asked for.
        repeats: of each ordered pair of held shapes.
        choice: what the lengths were chosen by.
    """

    asked: list[list[int]]
    held: list[list[int]]
    traffic: Mapping[str, list[list[list[int]]]]
    repeats: int
    choice: str


def switching_of(
    config: RunConfig, shapes: Sequence[Sequence[int]], lengths: Mapping[str, Any], positions: int
) -> Switching:
    """
    Args:
        shapes: those that requests have.
        positions: tokens of a sequence that the model takes at most.

    Raises:
        Refused: a trace cannot be read or is too long, or no shape that is held holds one that is asked for.
    """
    chosen = config.switching
    asked: list[Size] = [(batch, sequence) for batch, sequence in shapes]
    held = _held(chosen.pad_to, positions) or asked
    try:
        for one in asked:
            smallest(one, held)
    except ValueError as error:
        raise Refused(f"switching.pad_to: {error}") from None
    count = at_least("switching.requests", chosen.requests, 0)
    if count > MOST:
        raise Refused(f"switching.requests={count} is too many; at most {MOST} are served")
    traffic: dict[str, list[list[list[int]]]] = {}
    for switch in chosen.switch:
        if not 0 <= switch <= 1:
            raise Refused(f"switching.switch={switch} is no probability; it must lie between 0 and 1")
        traffic[f"switch={switch:g}"] = blocks_of_runs(count, switch, len(asked), config.seed)
    if lengths["distribution"] == "texts":
        raise Refused(
            "suite=switching draws lengths without a tokenizer; use lengths=stsb, squad_like, uniform or file"
        )
    if lengths["distribution"] != "full":
        traffic[config.lengths.name] = cut(drawn(count, lengths, asked, config.seed))
    if chosen.trace:
        traffic["trace"] = cut(from_file(chosen.trace, asked))
    return Switching(
        [list(size) for size in asked],
        [list(size) for size in held],
        traffic if count else {},
        at_least("switching.repeats", chosen.repeats, 1),
        config.lengths.name,
    )


def _held(pad_to: Sequence[Sequence[int]], positions: int) -> list[Size]:
    for size in pad_to:
        if len(size) != 2 or min(size) < 1:
            raise Refused(f"switching.pad_to has {list(size)}, which is not [batch,sequence]")
        if size[1] > positions:
            raise Refused(f"switching.pad_to has {list(size)}, beyond the {positions} positions of the model")
    return sorted({(batch, sequence) for batch, sequence in pad_to}, key=lambda size: (size[1], size[0]))
