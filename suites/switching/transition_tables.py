"""What changes of shape cost, by kind for every strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from backends.base import Array
from suites.statistics.stats import percentile, summarize
from suites.switching.costs import Costs, Pair, Visits
from suites.switching.strategy_names import Names, kinds
from suites.tables.markdown import markdown

Chosen = Callable[[Pair, Visits], Array]
"""Which visits of a pair are meant, [visits] of bool."""


def changes(costs: Sequence[Costs], names: Names) -> str:
    """A row for each kind of change of each strategy."""
    parts = list(dict.fromkeys(name for one in costs for visits in one.visits.values() for name in visits.parts))
    rows = [row for one in costs for row in _rows(one, names, parts)]
    header = ("strategy", "change", "count", "over steady us [95% CI]", "mean", "p99", *parts, "copy", "first step",
              "second step", "enqueue 1st", "2nd", "3rd", "on the GPU", "notes")  # fmt: skip
    return markdown(header, rows)


def _rows(costs: Costs, names: Names, parts: Sequence[str]) -> list[list[str]]:
    kind = kinds(costs.record, list(costs.visits))

    def of(name: str) -> Chosen:
        return lambda pair, visits: np.full(len(visits.whole), kind[pair] == name)

    def back(pair: Pair, visits: Visits) -> Array:
        came = np.array([earlier == pair[1] for earlier in visits.earlier])
        return came & (pair[0] != pair[1])

    def launched(wanted: bool) -> Chosen:
        # Against a third request that is a launch: packed tokens may miss there too.
        return lambda pair, visits: (
            (visits.replayed[:, 0] == wanted) & (visits.replayed[:, 2] == 1) & (pair[0] != pair[1])
        )

    chosen: dict[str, Chosen] = {name: of(name) for name in ("same shape", "other shape", "other profile")}
    chosen["back"] = back
    if costs.cuda_graph:
        chosen |= {"graph hit": launched(True), "graph miss": launched(False)}
    found = []
    for name, which in chosen.items():
        picked = {pair: which(pair, visits) for pair, visits in costs.visits.items()}
        if any(mask.any() for mask in picked.values()):
            found.append([names.of(costs.record, costs.cuda_graph), name, *_row(costs, picked, parts)])
    return found


def beyond(values: Array, at: int = 0) -> Array:
    """[visits, 3] of three requests: what one took beyond the third."""
    return np.asarray(values[:, at] - values[:, 2])


def _row(costs: Costs, picked: dict[Pair, Array], parts: Sequence[str]) -> list[str]:
    def gathered(value: Callable[[Visits], Array]) -> Array:
        return np.concatenate([value(costs.visits[pair])[mask] for pair, mask in picked.items()])

    def median(value: Callable[[Visits], Array]) -> str:
        return us(np.median(gathered(value)))

    def part(name: str) -> str:
        return median(lambda visits: beyond(visits.parts.get(name, np.zeros_like(visits.whole))))

    def enqueue(at: int) -> str:
        return median(lambda visits: np.asarray(visits.enqueue[:, at]))

    over = gathered(lambda visits: visits.over)
    summary, p99 = summarize(over.tolist()), percentile(over.tolist(), 99)
    return [
        str(summary.count),
        f"{us(summary.p50)} [{us(summary.low)}, {us(summary.high)}]",
        us(over.mean()),
        "" if p99 is None else us(p99),
        *map(part, parts),
        median(lambda visits: beyond(visits.copy)),
        median(lambda visits: beyond(visits.step)),
        median(lambda visits: beyond(visits.step, 1)),
        *map(enqueue, range(3)),
        _on_device(costs, {pair for pair, mask in picked.items() if mask.all()}),
        f"**invalid**: {costs.wrong}" if costs.wrong else "",
    ]


def _on_device(costs: Costs, pairs: set[Pair]) -> str:
    """Of kinds of change that are whole pairs: the first step beyond that after the same shape, taken alike."""
    device = [one for one in costs.record.scores["device"] if one["cuda_graph"] == costs.cuda_graph]
    first = {(tuple(one["from"]), tuple(one["to"])): one["first"] for one in device if one["first"]}
    found = [np.asarray(first[a, b]) - np.median(first[b, b]) for a, b in pairs if (a, b) in first and (b, b) in first]
    return us(np.median(np.concatenate(found))) if found else ""


def steady_times(costs: Sequence[Costs], names: Names) -> str:
    """The median time of a request that has the shape of the one before, by shape, and of its step on the device."""
    shapes = sorted({shape for one in costs for shape in one.shapes}, key=lambda size: (size[1], size[0]))
    rows = []
    for one in costs:
        whole = {s: np.concatenate([v.whole[:, 2] for (_, to), v in one.visits.items() if to == s]) for s in one.shapes}
        row = [f"{np.median(whole[shape]) / 1e6:.3f}" if shape in whole else "" for shape in shapes]
        rows.append([names.of(one.record, one.cuda_graph), "request", *row])
        device = [d for d in one.record.scores["device"] if d["cuda_graph"] == one.cuda_graph and d["again"]]
        again = {s: [x for d in device if tuple(d["to"]) == s for x in d["again"]] for s in one.shapes}
        if device:
            row = [f"{np.median(again[shape]) / 1e6:.3f}" if again.get(shape) else "" for shape in shapes]
            rows.append([names.of(one.record, one.cuda_graph), "step on the GPU", *row])
    return markdown(("strategy", "", *(f"{batch}x{sequence}" for batch, sequence in shapes)), rows)


def us(nanoseconds: float | Array) -> str:
    """Microseconds."""
    return f"{float(nanoseconds) / 1e3:.1f}"
