"""Latency records of several processes with programmed medians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from suites.records.record import Record

MakeRecord = Callable[..., Record]


def timed(make_record: MakeRecord, medians_ms: Sequence[float], count: int = 30, **changes: Any) -> Record:
    """Return a record of one shape (2x16) without CUDA graphs. Each process has `count` samples around its median.

    Args:
        medians_ms: median of each process.
        changes: fields of the cell or of the record, as for `make_record`.
    """
    record = make_record(**changes)
    measurements = []
    for process, median in enumerate(medians_ms):
        samples = tuple(round(median * 1e6 * (1 + 0.001 * (number % 3 - 1))) for number in range(count))
        window = ((0, sum(samples), count),)
        measurements += [
            replace(m, samples=samples, windows=window, process=process)
            for m in record.measurements
            if not m.cuda_graph
        ]
    return replace(record, measurements=tuple(measurements))


def unsteady(record: Record) -> Record:
    """Return the record with measurements that were not steady after warm-up."""
    return replace(record, measurements=tuple(replace(m, steady=False) for m in record.measurements))


def with_problem(record: Record, problem: str) -> Record:
    """Return the record with wrong outputs."""
    return replace(record, checks=tuple(replace(check, problem=problem) for check in record.checks))
