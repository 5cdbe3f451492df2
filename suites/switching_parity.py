"""Whether outputs after a change are those of a context that never saw another shape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from backends.base import Array, Feeds, Session
from suites.switching_workload import Workload
from suites.traffic import walk

DIFFERENT = 1e-2
"""Outputs after a change may differ from a fresh context's by this share of their largest value."""

Fresh = Mapping[int, Sequence[Array]]
"""By index of a shape the outputs for each of its judged inputs; a shape that failed is left out."""


def output(session: Session, feeds: Feeds) -> Array:
    """What a step gives."""
    session.load(feeds)
    session.step()
    session.wait()
    return np.array(session.fetch())


def parity(session: Session, workload: Workload, fresh: Fresh, graph: bool) -> dict[str, Any]:
    """Go through every ordered pair of shapes twice, with other inputs than the time before at the same shape, so that
    what was left standing is seen; where graphs are kept, the second time with plain steps among the others.

    Returns:
        transitions, how many of them launched a graph, how many gave other bits than `fresh`, and the largest
        difference as a share of the largest value, with where it was.
    """
    known = sorted(fresh)
    once, again = (([known[node] for node in walk(len(known), 1, seed)] if known else []) for seed in (0, 1))
    path = [*once, *again]
    visits: Counter[int] = Counter()
    worst: tuple[float, list[str]] = (0.0, [])
    unequal = replayed = 0
    for step, (before, after) in enumerate(pairwise([*path[:1], *path])):
        number, plain = visits[after] % len(fresh[after]), graph and step >= len(once) and visits[after] % 4 >= 2
        visits[after] += 1
        if plain:
            session.remembers = False
        found, wanted = output(session, workload.judged[after][number].feeds), fresh[after][number]
        replayed += session.replays
        if plain:
            session.remembers = True
        unequal += not np.array_equal(found, wanted)
        difference = apart(found, wanted)
        if not difference <= worst[0]:  # NaN is the worst
            worst = (difference, [str(workload.shapes[before]), str(workload.shapes[after])])
    return {"cuda_graph": graph, "transitions": len(path), "replayed": replayed, "unequal": unequal,
            "difference": worst[0], "where": worst[1]}  # fmt: skip


def apart(found: Array, wanted: Array) -> float:
    """The largest difference as a share of the largest value."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))


def complaint(found: Mapping[str, Any]) -> str:
    """What is wrong, if anything is."""
    if found["difference"] <= DIFFERENT:
        return ""
    after = " to ".join(found["where"])
    how = " with CUDA graphs" if found["cuda_graph"] else ""
    return f"after {after}{how} outputs are not those of a fresh context (by {found['difference']:.2g} of the largest)"
