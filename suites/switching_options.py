"""What the options of suite=switching resolve to: the shapes that are held, and the traces over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from suites.checks import Refused, at_least
from suites.choices import Suite
from suites.config import RunConfig
from suites.traffic import Size, drawn, from_file, runs, smallest


@dataclass(frozen=True)
class Switching:
    """
    Attributes:
        held: [batch, sequence] of each shape that is built and run.
        traffic: by name the stretches of a trace, each of shapes by index among the held.
        repeats: of each ordered pair of held shapes.
    """

    held: list[list[int]]
    traffic: Mapping[str, list[list[int]]]
    repeats: int


def switching_of(config: RunConfig, shapes: Sequence[Sequence[int]], lengths: Mapping[str, Any]) -> Switching | None:
    """
    Args:
        shapes: those that requests have.

    Raises:
        Refused: a trace cannot be read, or no shape that is held holds one that is asked for.
    """
    if config.suite.name is not Suite.switching:
        return None
    chosen = config.switching
    asked: list[Size] = [(batch, sequence) for batch, sequence in shapes]
    held = _held(chosen.pad_to) or asked
    try:
        place = [smallest(one, held) for one in asked]
    except ValueError as error:
        raise Refused(f"switching.pad_to: {error}") from None
    count = at_least("switching.requests", chosen.requests, 2)
    traces: dict[str, list[list[int]]] = {}
    for switch in chosen.switch:
        if not 0 <= switch <= 1:
            raise Refused(f"switching.switch={switch} is no probability; it must lie between 0 and 1")
        traces[f"switch={switch:g}"] = runs(count, switch, len(asked), config.seed)
    if lengths["distribution"] == "texts":
        raise Refused(
            "suite=switching draws lengths without a tokenizer; use lengths=stsb, squad_like, uniform or file"
        )
    if lengths["distribution"] != "full":
        traces[config.lengths.distribution.name] = [drawn(count, lengths, asked, config.seed)]
    if chosen.trace:
        traces["trace"] = [from_file(chosen.trace, asked)]
    traffic = {
        name: [[place[index] for index in stretch] for stretch in stretches] for name, stretches in traces.items()
    }
    sizes = [[batch, sequence] for batch, sequence in held]
    return Switching(sizes, traffic, at_least("switching.repeats", chosen.repeats, 1))


def _held(pad_to: Sequence[Sequence[int]]) -> list[Size]:
    for size in pad_to:
        if len(size) != 2 or min(size) < 1:
            raise Refused(f"switching.pad_to has {list(size)}, which is not [batch,sequence]")
    return sorted({(batch, sequence) for batch, sequence in pad_to}, key=lambda size: (size[1], size[0]))
