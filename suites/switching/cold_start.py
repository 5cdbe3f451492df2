"""Cold start: the first request of each shape in a new process. One process gives one sample for each shape.

suites/switching/measure.py runs a first request of every shape only once. A distribution needs several processes, so
the suite starts extra processes that only run these requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from backends.base import Array, Session, Shape
from suites.measuring import clock
from suites.switching.transitions import time_first_requests
from suites.switching.workload import Workload


def time_cold_start(
    opening: Callable[[], Iterator[tuple[str, Session | None]]],
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    requested: Sequence[Shape],
    number: int,
) -> dict[str, Any]:
    """Open one session and run the first requests of every shape in it.

    Args:
        shapes: the shapes that are built and run.
        arrays: in the format that backends/inputs/request_inputs.py writes.
        requested: the shapes of requests.
        number: of this process among the extra processes. It gives the order of the shapes: each shape is the first
            one in some process.

    Returns:
        `opening`, ns by step, and `met`, the first requests in the order of the run; see
        suites/switching/transitions.py.
    """
    workload = Workload.of(arrays, requested, shapes)
    session, steps = clock.time_opening(opening())
    with session:
        return {
            "opening": steps,
            "met": [
                time_first_requests(session, shapes[i], workload, i, "start") for i in shape_order(len(shapes), number)
            ],
        }


def shape_order(count: int, number: int) -> list[int]:
    """Return the shapes by index: shape `number` (modulo `count`) first, the others in random order."""
    first = number % count
    others = np.random.default_rng(number).permutation(count).tolist()
    return [first, *(index for index in others if index != first)]
