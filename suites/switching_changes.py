"""What single changes cost: every ordered pair of shapes in random order, on the host's clock and on the device's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from backends.base import Session, Shape
from suites import clock
from suites.record import REPLAY, Measurement
from suites.request_clock import Budget, Served, time_on_device, time_request, time_requests
from suites.switching_workload import Workload
from suites.traffic import walk

CAPTURES = 5
"""How often each shape's graph is captured for its cost."""

AT_LEAST = 2
"""Rounds over all pairs that are taken whatever the time."""

Traffic = Mapping[str, Sequence[Sequence[Sequence[int]]]]
"""By name a trace: blocks that can be served alone, each of stretches of requests by the index of their shape."""


def pairs(session: Session, workload: Workload, repeats: int, seconds: float, graph: bool) -> list[dict[str, Any]]:
    """Three requests of a shape after one of another (or of the same), for each ordered pair up to `repeats` times: the
    first pays for the change, the third is the steady state to compare with, in the same place."""
    turns, budget = workload.in_turn_at(), Budget.of(seconds)
    taken: dict[tuple[int, int], list[tuple[int, list[Served]]]] = {}
    time_request(session, next(turns[0]))
    earlier = 0
    for number in range(repeats):
        if number >= AT_LEAST and not budget.left:
            break
        for before, after in pairwise(walk(len(workload.shapes), 1, seed=number)):
            visit = [time_request(session, next(turns[after])) for _ in range(3)]
            taken.setdefault((before, after), []).append((earlier, visit))
            earlier = before
    shapes = workload.shapes
    return [
        {**_ends(shapes[a], shapes[b]), "cuda_graph": graph, "samples": _samples([visit for _, visit in visits]),
         "earlier": [_size(shapes[earlier]) for earlier, _ in visits]}
        for (a, b), visits in sorted(taken.items())
    ]  # fmt: skip


def _samples(visits: Sequence[Sequence[Served]]) -> dict[str, Any]:
    """Of all three requests each part by name, what they took, and whether they launched a graph."""
    names = dict.fromkeys(name for visit in visits for served in visit for name in served.parts)
    return {
        "parts": {name: [[served.parts.get(name, 0) for served in visit] for visit in visits] for name in names},
        **{name: [[getattr(served, name) for served in visit] for visit in visits]
           for name in ("copy", "enqueue", "step", "whole", "replayed")},
    }  # fmt: skip


def met(session: Session, shape: Shape, workload: Workload, index: int, where: str) -> dict[str, Any]:
    """The first requests of a shape, in this process or in this context, as `where` says."""
    turns = workload.in_turn_at()[index]
    return {"shape": _size(shape), "where": where, "samples": _samples([[time_request(session, next(turns))
                                                                        for _ in range(3)]])}  # fmt: skip


def on_device(
    session: Session, workload: Workload, taken: Sequence[Mapping[str, Any]], repeats: int, seconds: float, graph: bool
) -> list[dict[str, Any]]:
    """Device time of the first step after every change and of the one after it, and how often the device was idle
    before the host had enqueued them, which gives no sample.

    Args:
        taken: what `pairs` gave, which says how long the host takes.
    """
    host = [np.median(np.sum(np.asarray(t["samples"]["enqueue"])[:, :2], axis=1)) for t in taken]
    ahead = round(1_000_000 + 2 * max(host))
    turns, budget = workload.in_turn_at(), Budget.of(seconds)
    nodes = range(len(workload.shapes))
    found: dict[tuple[int, int], list[tuple[int, int] | None]] = {pair: [] for pair in product(nodes, nodes)}
    for number in range(repeats):
        if number >= AT_LEAST and not budget.left:
            break
        for index in np.random.default_rng(number).permutation(len(found)).tolist():
            before, after = pair = list(found)[index]
            found[pair].append(time_on_device(session, next(turns[before]), next(turns[after]), ahead))
    return [
        {**_ends(workload.shapes[a], workload.shapes[b]), "cuda_graph": graph, "first": [x[0] for x in times if x],
         "again": [x[1] for x in times if x], "overtaken": times.count(None)}
        for (a, b), times in found.items()
    ]  # fmt: skip


def captures(session: Session, workload: Workload) -> list[dict[str, Any]]:
    """A graph of each shape, captured several times for its cost and not kept: ns, and bytes that it took."""
    found = []
    for index, shape in enumerate(workload.shapes):
        taken: dict[str, list[int]] = {"capture": [], "launch": [], "again": [], "bytes": []}
        for _ in range(CAPTURES):
            # Each capture follows a plain step of its own, at another shape before where there is one.
            session.remembers = False
            for at in ((index + 1) % len(workload.shapes), index):
                session.load(workload.judged[at][0].feeds)
                session.step()
                session.wait()
            free = session.stream.free_memory() if session.stream else 0
            taken["capture"].append(clock.time_once(session.capture))
            taken["bytes"].append(free - session.stream.free_memory() if session.stream else 0)
            for launch in ("launch", "again"):
                taken[launch].append(clock.time_step(session))
        found.append({"shape": _size(shape), **taken})
    return found


def keep_graphs(session: Session, workload: Workload) -> int:
    """Have a graph for the sizes of all inputs that are known beforehand and of the first judged ones, to be launched
    whenever these come again; returns how many there are.

    Raises:
        Unsupported: the session cannot keep them.
    """
    session.remembers = True
    kept = 0
    known = [feeds for sets in workload.beforehand for feeds in sets] + [sets[0].feeds for sets in workload.judged]
    for feeds in known:
        session.load(feeds)
        if session.replays:
            continue
        session.step()
        session.wait()
        session.capture()
        kept += 1
    return kept


def replays(
    session: Session, workload: Workload, traffic: Traffic, seconds: float, graph: bool, steady: bool,
    progress: Callable[[str], None],
) -> tuple[list[Measurement], list[dict[str, Any]]]:  # fmt: skip
    """Serve traces request by request, each block by block for as long as the time lasts, at least the first one.

    Returns:
        A measurement a trace, one sample a request; and of each how many requests its blocks had, how many there would
        have been, how many had another shape than the one before, and how many launched a graph.
    """
    measured, told = [], []
    for name, blocks in traffic.items():
        progress(f"replaying {name}{' with graphs' if graph else ''}")
        turns, budget = workload.in_turn(), Budget.of(seconds)
        values: list[int] = []
        windows: list[tuple[int, int, int]] = []
        sizes: list[int] = []
        switches = replayed = 0
        for block in blocks:
            if sizes and not budget.left:
                break
            for stretch in block:
                # What came before the stretch is not part of it: its first shape is met once already.
                time_request(session, next(turns[stretch[0]]))
                samples, launched = time_requests(session, [next(turns[index]) for index in stretch])
                values += samples.values
                windows += samples.windows
                replayed += launched
                switches += sum(workload.place[a] != workload.place[b] for a, b in pairwise(stretch))
            sizes.append(sum(map(len, block)))
        measured.append(Measurement(f"{REPLAY} {name}", 0, 0, graph, tuple(values), tuple(windows), steady))
        told.append({"name": name, "cuda_graph": graph, "blocks": sizes, "switches": switches, "replayed": replayed,
                     "asked": sum(len(stretch) for block in blocks for stretch in block)})  # fmt: skip
    return measured, told


def _ends(before: Shape, after: Shape) -> dict[str, list[int]]:
    return {"from": _size(before), "to": _size(after)}


def _size(shape: Shape) -> list[int]:
    return [shape.batch, shape.sequence]
