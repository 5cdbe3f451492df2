"""Break-even points of strategies to markdown, by the share of requests that change the shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby, pairwise

import numpy as np

from suites.statistics.winners import ties
from suites.switching.costs import BreakEven, Costs, break_even, break_even_point
from suites.switching.strategies import Labels
from suites.tables.markdown import fitted, wrapped

SURE_SHARE = 0.95
"""Smallest share of resamplings with a break-even point for a pair in the table."""


def cheapest(strategies: Sequence[Costs], labels: Labels) -> list[str]:
    """Return lines with the cheapest strategy of each precision, and the break-even points within a backend."""
    lines = []
    for precision in sorted({strategy.record.cell.precision for strategy in strategies}):
        lines += _crossings([s for s in strategies if s.record.cell.precision == precision], precision, labels)
    rows = list(_pairs(strategies, labels))
    header = ("cheaper below", "cheaper above", "change share [95% CI]", "changes/s [95% CI]", "confidence")
    if rows:
        lines += ["", "#### Break-even points of strategies of one backend and precision, all shapes equally frequent"]
        lines += ["", BREAK_EVEN_LEGEND, "", fitted(header, rows, 2, repeat_keys=True)]
    return lines


BREAK_EVEN_LEGEND = """\
Both strategies take the same time at this share of requests that change the shape, or at this number of changes per
second if requests follow each other without a gap. The confidence is the share of resamplings with a break-even
point."""


def _pairs(strategies: Sequence[Costs], labels: Labels) -> Iterator[list[str]]:
    """Yield a row for each pair with a sure break-even point, grouped by backend and precision."""

    def kind(strategy: Costs) -> tuple[str, str]:
        return strategy.record.cell.backend, strategy.record.cell.precision

    for _, members in groupby(sorted(strategies, key=kind), key=kind):
        for first, second in combinations(members, 2):
            point = break_even_point(first, second)
            if point and point.certain >= SURE_SHARE:
                below, above = sorted((first, second), key=lambda strategy: float(strategy.means.at(0)))
                pair = [labels.of(strategy.record, strategy.cuda_graph) for strategy in (below, above)]
                yield [*pair, _share(point), _per_second(point), f"{point.certain:.0%}"]


def _share(point: BreakEven) -> str:
    return f"{point.switch:.3f} [{point.switch_low:.3f}, {point.switch_high:.3f}]"


def _per_second(point: BreakEven) -> str:
    return f"{point.per_second:,.1f} [{point.per_second_low:,.1f}, {point.per_second_high:,.1f}]"


def _crossings(strategies: Sequence[Costs], precision: str, labels: Labels) -> list[str]:
    shares = [float(break_even(first.means, second.means)) for first, second in combinations(strategies, 2)]
    edges = sorted({0.0, 1.0, *(share for share in shares if not np.isnan(share))})
    best: list[tuple[float, float, int]] = []
    for low, high in pairwise(edges):
        middle = (low + high) / 2
        winner = min(range(len(strategies)), key=lambda index: float(strategies[index].means.at(middle)))
        if best and best[-1][2] == winner:
            best[-1] = (best[-1][0], high, winner)
        else:
            best.append((low, high, winner))
    title = f"#### Cheapest in {precision}, by the share of requests that change the shape, all shapes equally frequent"
    lines = []
    for low, high, index in best:
        times = [(s.record, s.cuda_graph, float(s.means.at((low + high) / 2))) for s in strategies]
        tied = [labels.of(strategies[other].record, strategies[other].cuda_graph) for other in ties(times, index)]
        tie = f"; the spread between processes explains the lead over {', '.join(tied)}" if tied else ""
        lines.append(f"- {low:.3f} to {high:.3f}: {_name(strategies[index], labels)}{tie}")
    for (*_, earlier), (*_, later) in pairwise(best):
        point = break_even_point(*(strategies[index] for index in sorted((earlier, later))))
        assert point is not None  # the lines of the two strategies cross
        rate = f"{_per_second(point)} changes of shape per second"
        lines.append(f"- break-even at {_share(point)} or {rate}, in {point.certain:.0%} of resamplings")
    errors = [strategies[index].model_error for *_, index in best if not np.isnan(strategies[index].model_error)]
    if errors:
        lines.append(f"- by predicted means; replays of these differ by up to {max(errors):.0%}, and they decide")
    return ["", title, "", *(wrapped(line, "  ") for line in lines)]


def _name(strategy: Costs, labels: Labels) -> str:
    """Return the label of a strategy, followed by its full name."""
    label = labels.of(strategy.record, strategy.cuda_graph)
    return f"{label} ({labels.names.of(strategy.record, strategy.cuda_graph)})"
