"""Costs of changes of shape to markdown, by kind for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backends.base import Array
from suites.statistics.stats import percentile, summarize
from suites.switching.costs import Costs, Pair, Visits
from suites.switching.strategies import Labels
from suites.switching.strategy_names import change_kinds
from suites.tables.markdown import fitted

Chosen = Callable[[Pair, Visits], Array]
"""Selects visits of a pair, [visits] of bool."""


def changes(costs: Sequence[Costs], labels: Labels) -> str:
    """Return a row for each kind of change of each strategy; times in µs."""
    parts = list(dict.fromkeys(name for strategy in costs for v in strategy.visits.values() for name in v.parts))
    rows = [row for strategy in costs for row in _rows(strategy, labels, parts)]
    header = ("strategy", "change", "count", "extra cost µs [95% CI]", "mean", "p99", *parts, "copy", "first step",
              "second step", "enqueue 1st", "enqueue 2nd", "enqueue 3rd", "GPU first step", "notes")  # fmt: skip
    return fitted(header, rows, 2, repeat_keys=True)


def _rows(costs: Costs, labels: Labels, parts: Sequence[str]) -> list[list[str]]:
    kind = change_kinds(costs.record, list(costs.visits))

    def of(name: str) -> Chosen:
        return lambda pair, visits: np.full(len(visits.whole), kind[pair] == name)

    def back(pair: Pair, visits: Visits) -> Array:
        same_as_earlier = np.array([earlier == pair[1] for earlier in visits.earlier])
        return same_as_earlier & (pair[0] != pair[1])

    def launched(hit: bool) -> Chosen:
        # The third request must be a launch. Packed tokens may miss there too.
        return lambda pair, visits: (visits.replayed[:, 0] == hit) & (visits.replayed[:, 2] == 1) & (pair[0] != pair[1])

    chosen: dict[str, Chosen] = {name: of(name) for name in ("same shape", "other shape", "other profile")}
    chosen["back"] = back
    if costs.cuda_graph:
        chosen |= {"graph hit": launched(True), "graph miss": launched(False)}
    rows = []
    for name, which in chosen.items():
        picked = {pair: which(pair, visits) for pair, visits in costs.visits.items()}
        if any(mask.any() for mask in picked.values()):
            rows.append([labels.of(costs.record, costs.cuda_graph), name, *_row(costs, picked, parts)])
    return rows


def extra_time(values: Array, at: int = 0) -> Array:
    """Return the extra time of request number `at` over the third, from [visits, 3] of three requests."""
    return np.asarray(values[:, at] - values[:, 2])


def _row(costs: Costs, picked: dict[Pair, Array], parts: Sequence[str]) -> list[str]:
    def gathered(value: Callable[[Visits], Array]) -> Array:
        return np.concatenate([value(costs.visits[pair])[mask] for pair, mask in picked.items()])

    def median(value: Callable[[Visits], Array]) -> str:
        return us(np.median(gathered(value)))

    def part(name: str) -> str:
        return median(lambda visits: extra_time(visits.parts.get(name, np.zeros_like(visits.whole))))

    def enqueue(at: int) -> str:
        return median(lambda visits: np.asarray(visits.enqueue[:, at]))

    over = gathered(lambda visits: visits.extra)
    summary, p99 = summarize(over.tolist()), percentile(over.tolist(), 99)
    return [
        str(summary.count),
        f"{us(summary.p50)} [{us(summary.low)}, {us(summary.high)}]",
        us(over.mean()),
        "" if p99 is None else us(p99),
        *map(part, parts),
        median(lambda visits: extra_time(visits.copy)),
        median(lambda visits: extra_time(visits.step)),
        median(lambda visits: extra_time(visits.step, 1)),
        *map(enqueue, range(3)),
        _on_device(costs, {pair for pair, mask in picked.items() if mask.all()}),
        f"**invalid**: {costs.output_faults}" if costs.output_faults else "",
    ]


def _on_device(costs: Costs, pairs: set[Pair]) -> str:
    """Return the GPU time of the first step beyond that after the same shape, for kinds that are whole pairs."""
    first = {(times.before, times.after): times.first for times in costs.device if times.first}
    extra = [np.asarray(first[a, b]) - np.median(first[b, b]) for a, b in pairs if (a, b) in first and (b, b) in first]
    return us(np.median(np.concatenate(extra))) if extra else ""


def steady_times(costs: Sequence[Costs], labels: Labels) -> str:
    """Return the median time of a request without a change, and of its step on the device, by shape; times in ms."""
    shapes = sorted({shape for strategy in costs for shape in strategy.shapes}, key=lambda size: (size[1], size[0]))
    rows = []
    for strategy in costs:
        label = labels.of(strategy.record, strategy.cuda_graph)
        whole = {
            shape: np.concatenate([v.whole[:, 2] for (_, to), v in strategy.visits.items() if to == shape])
            for shape in strategy.shapes
        }
        row = [f"{np.median(whole[shape]) / 1e6:.3f}" if shape in whole else "" for shape in shapes]
        rows.append([label, "request", *row])
        device = [times for times in strategy.device if times.again]
        again = {shape: [ns for times in device if times.after == shape for ns in times.again] for shape in whole}
        if device:
            row = [f"{np.median(again[shape]) / 1e6:.3f}" if again.get(shape) else "" for shape in shapes]
            rows.append([label, "step on the GPU", *row])
    header = ("strategy", "time", *(f"{batch}x{sequence}" for batch, sequence in shapes))
    return fitted(header, rows, 2, repeat_keys=True)


def us(nanoseconds: float | Array) -> str:
    """Return microseconds."""
    return f"{float(nanoseconds) / 1e3:.1f}"
