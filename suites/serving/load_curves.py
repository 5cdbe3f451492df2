"""Curves of serving records: latency and batch size against the load, one curve for each strategy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from suites.records.record import OK, Record
from suites.serving.load_summary import workload_of
from suites.serving.load_verdict import Verdict, rules_of, verdict
from suites.serving.result import FEWEST, ServingResult
from suites.serving.strategy_text import batching
from suites.tables.distinctions import distinctions
from suites.tables.markdown import configuration


@dataclass(frozen=True)
class CurvePoint:
    """A load that the server keeps up with.

    Attributes:
        load: offered requests per second.
        p50_ms, p99_ms: percentiles of the latency; `p99_ms` is None with too few answers.
        batch: mean number of requests of a batch.
    """

    load: float
    p50_ms: float
    p99_ms: float | None
    batch: float


@dataclass(frozen=True)
class Curve:
    """A strategy: a record and its loads, the lightest first."""

    record: Record
    label: str
    points: tuple[CurvePoint, ...]


def curves_by_workload(records: Iterable[Record]) -> list[list[Curve]]:
    """Return the curves of each workload that has some, those of the highest loads first."""
    ordered = sorted((record for record in records if record.outcome == OK), key=workload_of)
    groups = [_curves([*members]) for _, members in groupby(ordered, key=workload_of)]
    return [group for group in groups if group]


def first_of_each_backend(curves: Sequence[Curve], most: int) -> list[Curve]:
    """Return at most this number of curves: the first of each backend, then the others, in their order."""
    firsts = {curve.record.cell.backend: curve.record.cell.id for curve in reversed(curves)}
    chosen = sorted(curves, key=lambda curve: curve.record.cell.id not in firsts.values())[:most]
    return [curve for curve in curves if curve in chosen]


def _curves(records: Sequence[Record]) -> list[Curve]:
    common = distinctions(records)
    short = {record.cell.id: _label(record) for record in records}
    counts = Counter(short.values())
    curves = []
    for record in records:
        label = short[record.cell.id]
        if counts[label] > 1 and (options := configuration(record, common.of(record))):
            label = f"{label}, {options}"
        if points := _points(record):
            curves.append(Curve(record, label, points))
    return sorted(curves, key=lambda curve: -curve.points[-1].load)


def _label(record: Record) -> str:
    return f"{record.cell.backend} {record.cell.precision}: {batching(record)}"


def _points(record: Record) -> tuple[CurvePoint, ...]:
    result = record.result
    assert isinstance(result, ServingResult)
    rules = rules_of(record.cell.options)
    points = [
        CurvePoint(
            point.offered,
            point.latency.p50 / 1e6,
            point.latency.p99 / 1e6 if point.answered >= FEWEST["p99"] else None,
            point.mean_batch,
        )
        for point in result.points
        if point.offered and point.answered and verdict(point, rules) is Verdict.keeps_up
    ]
    return tuple(sorted(points, key=lambda point: point.load))
