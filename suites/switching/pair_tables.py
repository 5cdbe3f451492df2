"""Costs of every ordered pair of shapes, and of profiles, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from backends.base import Array
from suites.records.record import Record
from suites.statistics.stats import percentile
from suites.switching.costs import Costs, Pair, Visits
from suites.switching.result import DeviceTimes
from suites.switching.strategy_names import StrategyNames, profiles_by_shape
from suites.switching.tables import costs_of, workload
from suites.switching.transition_tables import us
from suites.tables.models import model_names

LEGEND = """\
One row for each strategy and each ordered pair of shapes, or of profiles that several shapes share. Times are medians
in µs of a request after a request of another shape, over visits in random order. A pair of equal shapes has no change.

- **model, weights, lengths, shapes, strategy**: model, its requests, and the strategy as in `switching.md`.
- **kind**: *shape*, or *profile* for the visits between two profiles, equal shapes left out.
- **from, to**: the earlier and the later shape or profile.
- **extra cost µs, extra cost q25 µs, extra cost q75 µs**: time beyond that of the third request in the same place, and
  its quartiles.
- **names of calls**: host time of each call that prepares the shape; empty for a strategy without the call.
- **copy µs**: time until the inputs are copied.
- **enqueue 1st µs, enqueue 2nd µs, enqueue 3rd µs**: time until the call of a step returns, for three requests of the
  shape in a row. The third is the steady state.
- **GPU first step µs, GPU second step µs**: GPU time of the first two steps after the change, on a device that was busy
  during enqueue.
- **visits**: number of visits of a median."""

IDENTITY = ("model", "weights", "lengths", "shapes", "strategy")
KEYS = ("kind", "from", "to")

Label = str
Grouped = Mapping[tuple[Label, Label], Sequence[Pair]]
"""Pairs of shapes by the row and the column of a matrix."""

STEPS: Mapping[str, Callable[[Visits], Array]] = {
    "copy": lambda visits: np.asarray(visits.copy[:, 0]),
    "enqueue 1st": lambda visits: np.asarray(visits.enqueue[:, 0]),
    "enqueue 2nd": lambda visits: np.asarray(visits.enqueue[:, 1]),
    "enqueue 3rd": lambda visits: np.asarray(visits.enqueue[:, 2]),
}
"""Times of every visit after the shape is prepared, [visits] of ns."""


def pair_table(records: Iterable[Record]) -> str:
    """Return the pairs of all strategies of one machine as CSV; empty without a pair."""
    models = model_names(group := list(records))

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    rows: list[dict[str, str]] = []
    for title, members in groupby(sorted(group, key=title_of), key=title_of):
        of_workload = list(members)
        names = StrategyNames(of_workload)
        costs = [strategy for record in of_workload for strategy in costs_of(record, {}) if not strategy.measured_once]
        costs.sort(key=lambda strategy: names.of(strategy.record, strategy.cuda_graph))
        for strategy in costs:
            named = dict(zip(IDENTITY, (*title[:4], names.of(strategy.record, strategy.cuda_graph)), strict=True))
            rows += [named | row for row in pair_rows(strategy)]
    if not rows:
        return ""
    columns = [*IDENTITY, *KEYS, *dict.fromkeys(name for row in rows for name in row if name not in (*IDENTITY, *KEYS))]
    columns.sort(key=lambda name: name == "visits")
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def pair_rows(costs: Costs) -> list[dict[str, str]]:
    """Return a row for every ordered pair of shapes and, if shapes share profiles, of profiles."""
    label = {shape: f"{shape[0]}x{shape[1]}" for shape in costs.shapes}
    shapes = {(label[a], label[b]): [(a, b)] for a, b in costs.visits}
    rows = _rows(costs, "shape", shapes)
    profile = profiles_by_shape(costs.record, costs.shapes)
    if len(set(profile.values())) in (1, len(costs.shapes)):
        return rows
    profiles: dict[tuple[Label, Label], list[Pair]] = {}
    for a, b in costs.visits:
        if a != b:
            profiles.setdefault((profile[a], profile[b]), []).append((a, b))
    return [*rows, *_rows(costs, "profile", profiles)]


def _rows(costs: Costs, kind: str, grouped: Grouped) -> list[dict[str, str]]:
    device = {(times.before, times.after): times for times in costs.device}
    calls = dict.fromkeys(name for pairs in grouped.values() for pair in pairs for name in costs.visits[pair].parts)

    def visits(value: Callable[[Visits], Array], pairs: Sequence[Pair]) -> Array:
        return np.concatenate([value(costs.visits[pair]) for pair in pairs])

    def steps(which: Callable[[DeviceTimes], Sequence[int]], pairs: Sequence[Pair]) -> Array:
        return np.concatenate([which(device[pair]) if pair in device else [] for pair in pairs])

    def row(before: Label, after: Label, pairs: Sequence[Pair]) -> dict[str, str]:
        extra = visits(lambda times: times.extra, pairs)
        return {
            **dict(zip(KEYS, (kind, before, after), strict=True)),
            "extra cost µs": _median(extra),
            "extra cost q25 µs": _quartile(extra, 25),
            "extra cost q75 µs": _quartile(extra, 75),
            **{f"{name} µs": _median(visits(_call(name), pairs)) for name in calls},
            **{f"{name} µs": _median(visits(value, pairs)) for name, value in STEPS.items()},
            "GPU first step µs": _median(steps(lambda times: times.first, pairs)),
            "GPU second step µs": _median(steps(lambda times: times.again, pairs)),
            "visits": str(sum(len(costs.visits[pair].whole) for pair in pairs)),
        }

    return [row(before, after, pairs) for (before, after), pairs in grouped.items()]


def _call(name: str) -> Callable[[Visits], Array]:
    """Return a function that gives the host time of a call in the first request; 0 if the change has no such call."""
    return lambda visits: np.asarray(visits.parts.get(name, np.zeros_like(visits.whole))[:, 0])


def _median(samples: Array) -> str:
    return us(np.median(samples)) if len(samples) else ""


def _quartile(samples: Array, q: float) -> str:
    value = percentile(samples.tolist(), q)
    return "" if value is None else us(value)
