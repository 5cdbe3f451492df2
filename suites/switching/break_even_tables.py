"""Where one strategy becomes cheaper than another, by the share of requests that have another shape than the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, groupby, pairwise

import numpy as np

from suites.statistics.winners import ties
from suites.switching.costs import Costs, Meeting, break_even, meeting
from suites.switching.strategy_names import Names
from suites.tables.markdown import markdown

SURE = 0.95
"""The share of resamplings in which two strategies must meet to stand in the table of pairs."""


def cheapest(held: Sequence[Costs], names: Names) -> list[str]:
    """By precision, where the cheapest strategy changes with the share of requests that switch; then, within a backend
    and precision, where any two change places."""
    lines = []
    for precision in sorted({one.record.cell.precision for one in held}):
        lines += _crossings([one for one in held if one.record.cell.precision == precision], precision, names)
    rows = list(_pairs(held, names))
    header = ("cheaper below", "cheaper above", "share that changes [95% CI]", "changes of shape a second", "certain")
    title = "Where two ways of one backend and precision take as long, all shapes as often:"
    return [*lines, title, "", markdown(header, rows), ""] if rows else lines


def _pairs(held: Sequence[Costs], names: Names) -> Iterator[list[str]]:
    """Rows of those that surely meet, the pairs of a backend and precision in turn."""

    def kind(one: Costs) -> tuple[str, str]:
        return one.record.cell.backend, one.record.cell.precision

    for _, members in groupby(sorted(held, key=kind), key=kind):
        for one, other in combinations(members, 2):
            found = meeting(one, other)
            if found and found.certain >= SURE:
                below, above = sorted((one, other), key=lambda way: float(way.means.at(0)))
                ways = [names.of(way.record, way.cuda_graph) for way in (below, above)]
                yield [*ways, _share(found), _per_second(found), f"{found.certain:.0%}"]


def _share(found: Meeting) -> str:
    return f"{found.switch:.3f} [{found.switch_low:.3f}, {found.switch_high:.3f}]"


def _per_second(found: Meeting) -> str:
    return f"{found.per_second:,.1f} [{found.per_second_low:,.1f}, {found.per_second_high:,.1f}]"


def _crossings(held: Sequence[Costs], precision: str, names: Names) -> list[str]:
    met = [float(break_even(one.means, other.means)) for one, other in combinations(held, 2)]
    edges = sorted({0.0, 1.0, *(switch for switch in met if not np.isnan(switch))})
    best: list[tuple[float, float, int]] = []
    for low, high in pairwise(edges):
        winner = min(range(len(held)), key=lambda index: float(held[index].means.at((low + high) / 2)))
        if best and best[-1][2] == winner:
            best[-1] = (best[-1][0], high, winner)
        else:
            best.append((low, high, winner))
    title = (
        f"Cheapest in {precision} by the share of requests that have another shape than the one before, all shapes as"
    )
    lines = [f"{title} often:", ""]
    replayed = [one.misfit for one in (held[index] for *_, index in best) if not np.isnan(one.misfit)]
    for low, high, index in best:
        times = [(one.record, one.cuda_graph, float(one.means.at((low + high) / 2))) for one in held]
        tied = [names.of(held[other].record, held[other].cuda_graph) for other in ties(times, index)]
        tie = f"; the spread between processes explains the lead over {', '.join(tied)}" if tied else ""
        lines.append(f"- {low:.3f} to {high:.3f}: {names.of(held[index].record, held[index].cuda_graph)}{tie}")
    for (*_, earlier), (*_, later) in pairwise(best):
        found = meeting(*(held[index] for index in sorted((earlier, later))))
        assert found is not None  # lines change places where they cross
        rate = f"{_per_second(found)} changes of shape a second"
        lines.append(f"- they meet at {_share(found)} or {rate}, in {found.certain:.0%} of resamplings")
    if replayed:
        lines.append(
            f"- by steady times and changes; replays of these are up to {max(replayed):.0%} from it and decide"
        )
    return [*lines, ""]
