"""What a process that has just been started pays for the first request of each shape: one sample a shape and process.

`suites/switching.py` meets every shape once, in a process that goes on to other things; a distribution wants processes
that do nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from suites import clock
from suites.switching_changes import met
from suites.switching_workload import Workload


def start(
    opening: Callable[[], Iterator[tuple[str, Session | None]]],
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    asked: Sequence[Shape],
    number: int,
) -> dict[str, Any]:
    """Open one session and meet all shapes in it, each for the first time in this process.

    Args:
        arrays: as backends/input_sets.py writes them.
        number: of this process among its like, which says the order: each shape comes first in one of them in turn.

    Returns:
        `opening`, ns by step, and `met`, in the order of the meetings; see suites/switching_changes.py.
    """
    workload = Workload.of(arrays, asked, shapes)
    session, steps = clock.time_opening(opening())
    with session:
        return {
            "opening": steps,
            "met": [met(session, shapes[at], workload, at, "start") for at in order(len(shapes), number)],
        }


def order(count: int, number: int) -> list[int]:
    first = number % count
    others = np.random.default_rng(number).permutation(count).tolist()
    return [first, *(at for at in others if at != first)]
