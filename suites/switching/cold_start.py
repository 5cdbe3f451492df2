"""Cold start: the first request of each shape in a new process. One process gives one sample for each shape.

suites/switching/measure.py runs a first request of every shape only once. A distribution needs several processes, so
the suite starts extra processes that only run these requests.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from suites.measuring import clock
from suites.measuring.measure_run import MeasureRun
from suites.suite import Question
from suites.switching.result import ColdStart
from suites.switching.suite import SwitchingQuestion
from suites.switching.transitions import time_first_requests
from suites.switching.workload import Workload


def time_cold_start(run: MeasureRun, question: Question, number: int) -> ColdStart:
    """Open one session and run the first requests of every shape in it.

    Args:
        run: its arrays are in the format that backends/inputs/request_inputs.py writes.
        question: a SwitchingQuestion.
        number: of this process among the extra processes. It gives the order of the shapes: each shape is the first
            one in some process.

    """
    workload = Workload.of(run.arrays, cast(SwitchingQuestion, question).requested, run.shapes)
    session, steps = clock.time_opening(run.opening())
    with session:
        order = shape_order(len(run.shapes), number)
        requests = [time_first_requests(session, run.shapes[index], workload, index, "start") for index in order]
    return ColdStart(steps, tuple(requests))


def shape_order(count: int, number: int) -> list[int]:
    """Return the shapes by index: shape `number` (modulo `count`) first, the others in random order."""
    first = number % count
    others = np.random.default_rng(number).permutation(count).tolist()
    return [first, *(index for index in others if index != first)]
