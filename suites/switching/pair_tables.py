"""Every ordered pair of shapes, and of profiles, to markdown: what a change costs, and each part of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from backends.base import Array
from suites.records.record import Record
from suites.statistics.stats import percentile
from suites.switching.costs import Costs, Pair, Visits
from suites.switching.strategy_names import Names, profiles_by_shape
from suites.switching.tables import costs_of, workload
from suites.switching.transition_tables import us
from suites.tables.markdown import by_machine, markdown, one_machine
from suites.tables.models import model_names

LEGEND = """\
What a request takes after one of another shape: from the shape of the row to that of the column, in microseconds,
medians over visits in random order. *over steady*: what it takes beyond the third request in the same place, with
quartiles. Its parts: each call that makes ready for the shape, by its name; *copy* of the inputs until it is done;
*first enqueue*, *second* and *third*: until the call of a step returns, of three requests of that shape in a row, the
last of which is the steady state. *on the GPU*: the first step after the change, and *again* the one after it, on a
device that was busy while the host enqueued them. *visits*: how many a median is of. The same shape twice is no change.
`switching.md` says what the calls are and what all parts come to by kind of change."""

Label = str
Grouped = Mapping[tuple[Label, Label], Sequence[Pair]]
"""The pairs of shapes that stand in one place of a matrix."""

STEPS: Mapping[str, Callable[[Visits], Array]] = {
    "copy": lambda visits: np.asarray(visits.copy[:, 0]),
    "first enqueue": lambda visits: np.asarray(visits.enqueue[:, 0]),
    "second": lambda visits: np.asarray(visits.enqueue[:, 1]),
    "third": lambda visits: np.asarray(visits.enqueue[:, 2]),
}
"""What is read off every visit once it is ready for the shape, [visits] of ns."""


def pair_tables(records: Iterable[Record]) -> str:
    """All records in markdown: one section a machine, one part a model and set of requests, one table a strategy."""
    return by_machine("Every change of shape", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    models = model_names(records)

    def title_of(record: Record) -> tuple[str, ...]:
        return models(record), *workload(record)[1:]

    lines = ["", one_machine(records)]
    for title, members in groupby(sorted(records, key=title_of), key=title_of):
        group = list(members)
        names = Names(group)
        costs = [one for record in group for one in costs_of(record, {}) if not one.single]
        costs.sort(key=lambda one: names.of(one.record, one.cuda_graph))
        lines += ["", f"### {', '.join(title[:-1])}"]
        lines += [text for one in costs for text in matrices(one, names.of(one.record, one.cuda_graph))]
    return "\n".join(lines)


def matrices(costs: Costs, name: str) -> list[str]:
    """Every ordered pair of shapes and, where they share some, of profiles."""
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
    """A matrix a quantity, one below another."""
    device = {
        (tuple(one["from"]), tuple(one["to"])): one
        for one in costs.record.scores["device"]
        if one["cuda_graph"] == costs.cuda_graph
    }

    calls = dict.fromkeys(name for pairs in grouped.values() for pair in pairs for name in costs.visits[pair].parts)

    def visits(value: Callable[[Visits], Array], pairs: Sequence[Pair]) -> Array:
        return np.concatenate([value(costs.visits[pair]) for pair in pairs])

    def part(value: Callable[[Visits], Array]) -> Callable[[Sequence[Pair]], str]:
        return lambda pairs: _median(visits(value, pairs))

    def steps(which: str, pairs: Sequence[Pair]) -> Array:
        return np.concatenate([device[pair][which] if pair in device else [] for pair in pairs])

    said: dict[str, Callable[[Sequence[Pair]], str]] = {
        "over steady": lambda pairs: _quartiles(visits(lambda one: one.over, pairs)),
        **{name: part(_call(name)) for name in calls},
        **{name: part(value) for name, value in STEPS.items()},
        "on the GPU": lambda pairs: _median(steps("first", pairs)),
        "again": lambda pairs: _median(steps("again", pairs)),
        "visits": lambda pairs: str(sum(len(costs.visits[pair].whole) for pair in pairs)),
    }
    rows = [
        [name, before, *(say(grouped[before, after]) if (before, after) in grouped else "" for after in labels)]
        for name, say in said.items()
        for before in labels
    ]
    return markdown(("", "from \\ to", *labels), [row for row in rows if any(row[2:])])


def _call(name: str) -> Callable[[Visits], Array]:
    """The host's time in a call of the first request; none where that change does not make it."""
    return lambda visits: np.asarray(visits.parts.get(name, np.zeros_like(visits.whole))[:, 0])


def _median(samples: Array) -> str:
    return us(np.median(samples)) if len(samples) else ""


def _quartiles(samples: Array) -> str:
    low, high = (percentile(samples.tolist(), q) for q in (25, 75))
    between = "" if low is None or high is None else f" ({us(low)} to {us(high)})"
    return f"{us(np.median(samples))}{between}"
