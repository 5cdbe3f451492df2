"""Count the cells of a sweep before Hydra lists them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from suites.schema.refusals import Refused

MOST_CELLS = 10_000
"""Most cells of a sweep. Hydra lists and composes all cells of a sweep before the first cell runs."""


def check_sweep(arguments: Sequence[str]) -> None:
    """Check the number of cells of a sweep.

    Raises:
        Refused: The sweep has more than `MOST_CELLS` cells.
    """
    if not {"-m", "--multirun"} & set(arguments):
        return
    cells = math.prod(_counts(word for word in arguments if not word.startswith("-")))
    if cells > MOST_CELLS:
        raise Refused(f"the sweep has {cells:,} cells; split it into sweeps of at most {MOST_CELLS:,} cells")


def _counts(words: Iterable[str]) -> Iterable[int]:
    """Yield the number of values of each override with several values. Hydra refuses malformed overrides later."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    for word in words:
        try:
            override = parser.parse_override(word)
            if override.is_sweep_override():
                yield _count(override.value())
        except Exception:
            continue


def _count(sweep: object) -> int:
    from hydra.core.override_parser.types import ChoiceSweep, RangeSweep

    if isinstance(sweep, ChoiceSweep):
        return len(sweep.list)
    if isinstance(sweep, RangeSweep):
        start, stop = sweep.start, sweep.stop
        assert start is not None
        assert stop is not None
        return int(max(0, math.ceil((stop - start) / sweep.step)))
    return 1
