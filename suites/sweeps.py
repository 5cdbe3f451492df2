"""How many cells a sweep has, counted before Hydra lists them all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from suites.checks import Refused

MOST_CELLS = 10_000
"""Hydra keeps a list of all cells of a sweep, and composes each before the first one runs."""


def check_sweep(arguments: Sequence[str]) -> None:
    """
    Raises:
        Refused: a sweep has more than `MOST_CELLS` cells.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return
    cells = math.prod(_counts(word for word in arguments if not word.startswith("-")))
    if cells > MOST_CELLS:
        raise Refused(f"the sweep has {cells:,} cells; ask for at most {MOST_CELLS:,} at a time")


def _counts(words: Iterable[str]) -> Iterable[int]:
    """The number of values of each override that sweeps; what cannot be parsed is left for Hydra to refuse."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
            if override.is_sweep_override():
                yield _count(override.value())
        except Exception:
            continue


def _count(sweep: Any) -> int:
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if isinstance(sweep, RangeSweep):
        values: Any = sweep  # its fields may be None in the types, and are numbers once it was parsed
        return int(max(0, math.ceil((values.stop - values.start) / values.step)))
    return 1
