"""Parity check: outputs after a change of shape must equal outputs of a new context that ran only one shape."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from backends.base import Array, Feeds, Session
from suites.measuring.output_difference import compare_outputs
from suites.switching.result import Parity
from suites.switching.traffic import euler_circuit
from suites.switching.workload import Workload

MAX_RELATIVE_DIFFERENCE = 1e-2
"""Largest difference from the outputs of a new context that is accepted, as a share of their largest value."""

FreshOutputs = Mapping[int, Sequence[Array]]
"""Outputs of new contexts: by index of a shape, one for each of its judged inputs. A shape that failed is missing."""


def output(session: Session, feeds: Feeds) -> Array:
    """Run one step and return a copy of its output."""
    session.load(feeds)
    session.step()
    session.wait()
    return np.array(session.fetch())


def parity(session: Session, workload: Workload, fresh: FreshOutputs, graph: bool) -> Parity:
    """Run every ordered pair of shapes twice and compare the outputs with `fresh`.

    Each visit of a shape uses other inputs than the visit before, so that a stale output shows as a difference. Where
    graphs are kept, the second round mixes plain steps with graph launches.

    """
    available = sorted(fresh)
    once, again = (
        ([available[n] for n in euler_circuit(len(available), 1, seed)] if available else []) for seed in (0, 1)
    )
    path = [*once, *again]
    visits: Counter[int] = Counter()
    worst: tuple[float, tuple[str, ...]] = (0.0, ())
    unequal = replayed = 0
    for step, (before, after) in enumerate(pairwise([*path[:1], *path])):
        number, plain = visits[after] % len(fresh[after]), graph and step >= len(once) and visits[after] % 4 >= 2
        visits[after] += 1
        if plain:
            session.keeps_graphs = False
        result, reference = output(session, workload.reference_cases[after][number].feeds), fresh[after][number]
        replayed += session.replays
        if plain:
            session.keeps_graphs = True
        unequal += not np.array_equal(result, reference)
        difference = compare_outputs(result, reference).relative_to_largest
        if not difference <= worst[0]:  # NaN is the worst
            worst = (difference, (str(workload.shapes[before]), str(workload.shapes[after])))
    difference, where = worst
    return Parity(graph, len(path), unequal, difference, replayed, where)


def parity_fault(checked: Parity) -> str:
    """Return the reason why a result of `parity` is a failure; empty if it is none."""
    difference = math.nan if checked.difference is None else checked.difference
    if difference <= MAX_RELATIVE_DIFFERENCE:
        return ""
    change = " to ".join(checked.where)
    mode = " with CUDA graphs" if checked.cuda_graph else ""
    return (
        f"outputs after a change from {change}{mode} differ from those of a new context "
        f"by {difference:.2g} of the largest value"
    )
