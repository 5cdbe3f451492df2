"""Costs of every ordered pair of shapes, and of profiles, to markdown."""

from __future__ import annotations

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
from suites.tables.markdown import by_machine, fitted, one_machine
from suites.tables.models import model_names

LEGEND = """\
Times of a request after a request of another shape, in µs: from the shape of the row to the shape of the column. They
are medians over visits in random order. A row with the same shape twice has no change.

- **extra cost**: time beyond that of the third request in the same place, with quartiles.
- **names of calls**: host time of each call that prepares the shape. `switching.md` explains them, and has all times by
  kind of change.
- **copy**: time until the inputs are copied.
- **enqueue 1st, 2nd, 3rd**: time until the call of a step returns, for three requests of the shape in a row. The third
  is the steady state.
- **GPU first step, GPU second step**: GPU time of the first two steps after the change, on a device that was busy
  during enqueue.
- **visits**: number of visits of a median."""

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


def pair_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one part for each model and set of requests."""
    return by_machine("Every change of shape", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    models = model_names(records)

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    lines = ["", one_machine(records)]
    for title, members in groupby(sorted(records, key=title_of), key=title_of):
        group = list(members)
        names = StrategyNames(group)
        costs = [strategy for record in group for strategy in costs_of(record, {}) if not strategy.measured_once]
        costs.sort(key=lambda strategy: names.of(strategy.record, strategy.cuda_graph))
        lines += ["", f"### {', '.join(title[:-1])}"]
        for strategy in costs:
            lines += matrices(strategy, names.of(strategy.record, strategy.cuda_graph))
    return "\n".join(lines)


def matrices(costs: Costs, name: str) -> list[str]:
    """Return the tables of every ordered pair of shapes and, if shapes share profiles, of profiles."""
    label = {shape: f"{shape[0]}x{shape[1]}" for shape in costs.shapes}
    shapes = {(label[a], label[b]): [(a, b)] for a, b in costs.visits}
    lines = ["", f"#### {name}", "", _matrix(costs, list(label.values()), shapes)]
    profile = profiles_by_shape(costs.record, costs.shapes)
    if len(set(profile.values())) in (1, len(costs.shapes)):
        return lines
    profiles: dict[tuple[Label, Label], list[Pair]] = {}
    for a, b in costs.visits:
        if a != b:
            profiles.setdefault((profile[a], profile[b]), []).append((a, b))
    title = f"#### {name}: by profile, other shapes only"
    return [*lines, "", title, "", _matrix(costs, list(dict.fromkeys(profile.values())), profiles)]


def _matrix(costs: Costs, labels: Sequence[Label], grouped: Grouped) -> str:
    """Return a table with a matrix for each quantity, one below another."""
    device = {(times.before, times.after): times for times in costs.device}

    calls = dict.fromkeys(name for pairs in grouped.values() for pair in pairs for name in costs.visits[pair].parts)

    def visits(value: Callable[[Visits], Array], pairs: Sequence[Pair]) -> Array:
        return np.concatenate([value(costs.visits[pair]) for pair in pairs])

    def part(value: Callable[[Visits], Array]) -> Callable[[Sequence[Pair]], str]:
        return lambda pairs: _median(visits(value, pairs))

    def steps(which: Callable[[DeviceTimes], Sequence[int]], pairs: Sequence[Pair]) -> Array:
        return np.concatenate([which(device[pair]) if pair in device else [] for pair in pairs])

    quantities: dict[str, Callable[[Sequence[Pair]], str]] = {
        "extra cost": lambda pairs: _quartiles(visits(lambda times: times.extra, pairs)),
        **{name: part(_call(name)) for name in calls},
        **{name: part(value) for name, value in STEPS.items()},
        "GPU first step": lambda pairs: _median(steps(lambda times: times.first, pairs)),
        "GPU second step": lambda pairs: _median(steps(lambda times: times.again, pairs)),
        "visits": lambda pairs: str(sum(len(costs.visits[pair].whole) for pair in pairs)),
    }
    rows = [
        [name, before, *(text_of(grouped[before, after]) if (before, after) in grouped else "" for after in labels)]
        for name, text_of in quantities.items()
        for before in labels
    ]
    header = ("quantity", "from \\ to", *labels)
    return fitted(header, [row for row in rows if any(row[2:])], 2, repeat_keys=True)


def _call(name: str) -> Callable[[Visits], Array]:
    """Return a function that gives the host time of a call in the first request; 0 if the change has no such call."""
    return lambda visits: np.asarray(visits.parts.get(name, np.zeros_like(visits.whole))[:, 0])


def _median(samples: Array) -> str:
    return us(np.median(samples)) if len(samples) else ""


def _quartiles(samples: Array) -> str:
    low, high = (percentile(samples.tolist(), q) for q in (25, 75))
    between = "" if low is None or high is None else f" ({us(low)} to {us(high)})"
    return f"{us(np.median(samples))}{between}"
