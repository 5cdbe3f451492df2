"""The switching question: what does it cost to go from one shape to another, and what does that make of a trace?

Runs in the measuring worker, over any session. Shapes are first met cold, then every ordered pair of them many times in
random order, with plain steps and with a CUDA graph for each shape that is kept; then traces are replayed request by
request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from backends.base import Array, Feeds, Session, Shape, Unsupported
from suites import clock
from suites.clock import Effort, Samples
from suites.latency import compare, inputs_of
from suites.record import REPLAY, Measurement
from suites.traffic import walk

CAPTURES = 5
"""How often each shape's graph is captured for its cost."""

DIFFERENT = 1e-2
"""Outputs after a change may differ from a fresh context's by this share of their largest value."""


@dataclass(frozen=True)
class Switcher:
    """A session and what it is to run at each shape, by index."""

    session: Session
    feeds: Sequence[Feeds]

    def go(self, index: int) -> clock.Change:
        return clock.time_change(self.session, self.feeds[index])

    def output(self, index: int) -> Array:
        """What a step at a shape gives."""
        self.session.load(self.feeds[index])
        self.session.step()
        self.session.wait()
        return np.array(self.session.fetch())


def measure(
    session: Session,
    shapes: Sequence[Shape],
    arrays: Mapping[str, Array],
    effort: Effort,
    cuda_graph: bool,
    progress: Callable[[str], None],
    traffic: Mapping[str, Sequence[Sequence[int]]],
    repeats: int,
    again: Callable[[], AbstractContextManager[Session]],
) -> dict[str, Any]:
    """
    Args:
        traffic: traces by name, in stretches of shapes by index.
        repeats: of each ordered pair of shapes.
        again: opens one more like `session`.

    Returns:
        As suites/latency.py, and `switching`: transitions (samples in ns by part of suites/clock.py's Change, for each
        pair; cold ones apart), captures (by shape) and parity (see `_parity`). Replays are measurements, one sample a
        request.
    """
    loaded = [inputs_of(arrays, shape) for shape in shapes]
    switcher = Switcher(session, [feeds for feeds, _, _ in loaded])
    progress("cold")
    transitions = _cold(switcher, shapes)
    progress("every pair of shapes")
    transitions += _pairs(switcher, shapes, repeats, False)
    replays = _replays(switcher, traffic, False, progress)
    fresh = []
    for index, shape in enumerate(shapes):
        progress(f"a fresh context for {shape}")
        with again() as other:
            fresh.append(Switcher(other, switcher.feeds).output(index))
    parity = [_parity(switcher, shapes, fresh, False)]
    checks = [
        {"batch": shape.batch, "sequence": shape.sequence, "cuda_graph": False,
         **compare(fresh[index], reference, rows, feeds["attention_mask"])}
        for index, (shape, (feeds, reference, rows)) in enumerate(zip(shapes, loaded, strict=True))
    ]  # fmt: skip
    captures, facts = [], {}
    if cuda_graph:
        try:
            progress("capturing")
            captures = _captures(switcher, shapes)
            _keep_graphs(switcher)
            transitions += _pairs(switcher, shapes, repeats, True)
            replays += _replays(switcher, traffic, True, progress)
            parity.append(_parity(switcher, shapes, fresh, True))
        except Unsupported as reason:
            facts["no_cuda_graph"] = str(reason)
    wrong = [text for one in parity if (text := _unequal(one))]
    return {
        "measurements": [m.__dict__ for m in replays],
        "checks": checks,
        "facts": facts,
        "failures": {"every pair": "; ".join(wrong)} if wrong else {},
        "switching": {"transitions": transitions, "captures": captures, "parity": parity},
    }


def _cold(switcher: Switcher, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
    """The first time that each shape is met in this process."""
    found, before = [], None
    for index, shape in enumerate(shapes):
        change = switcher.go(index)
        found.append(_transition(before or shape, shape, True, False, [change]))
        before = shape
    return found


def _pairs(switcher: Switcher, shapes: Sequence[Shape], repeats: int, graph: bool) -> list[dict[str, Any]]:
    changes: dict[tuple[int, int], list[clock.Change]] = {}
    path = walk(len(shapes), repeats, seed=repeats)
    switcher.go(path[0])
    for before, after in pairwise(path):
        changes.setdefault((before, after), []).append(switcher.go(after))
    return [_transition(shapes[a], shapes[b], False, graph, taken) for (a, b), taken in sorted(changes.items())]


def _transition(
    before: Shape, after: Shape, cold: bool, graph: bool, changes: Sequence[clock.Change]
) -> dict[str, Any]:
    samples = {part: [getattr(change, part) for change in changes] for part in clock.Change.__dataclass_fields__}
    ends = {"from": [before.batch, before.sequence], "to": [after.batch, after.sequence]}
    return {**ends, "cold": cold, "cuda_graph": graph, "samples": samples}


def _captures(switcher: Switcher, shapes: Sequence[Shape]) -> list[dict[str, Any]]:
    """A graph of each shape, captured several times for its cost and not kept."""
    session, found = switcher.session, []
    session.remembers = False
    for index, shape in enumerate(shapes):
        taken: dict[str, list[int]] = {"capture": [], "launch": [], "again": []}
        for _ in range(CAPTURES):
            # Another shape in between, so that each capture follows a plain step of its own.
            switcher.output((index + 1) % len(shapes))
            switcher.output(index)
            taken["capture"].append(clock.time_once(session.capture))
            for launch in ("launch", "again"):
                taken[launch].append(clock.time_step(session))
        found.append({"shape": [shape.batch, shape.sequence], **taken})
    return found


def _keep_graphs(switcher: Switcher) -> None:
    """Have a graph of each shape, to be launched whenever the shape comes again.

    Raises:
        Unsupported: the session cannot keep them.
    """
    switcher.session.remembers = True
    for index in range(len(switcher.feeds)):
        switcher.output(index)
        switcher.session.capture()


def _replays(
    switcher: Switcher, traffic: Mapping[str, Sequence[Sequence[int]]], graph: bool, progress: Callable[[str], None]
) -> list[Measurement]:
    found = []
    for name, stretches in traffic.items():
        progress(f"replaying {name}{' with graphs' if graph else ''}")
        taken: list[Samples] = []
        for stretch in stretches:
            # What came before the stretch is not part of it: its first shape is met once already.
            switcher.go(stretch[0])
            taken.append(clock.time_requests(switcher.session, [switcher.feeds[index] for index in stretch]))
        values = tuple(value for samples in taken for value in samples.values)
        windows = tuple(window for samples in taken for window in samples.windows)
        found.append(Measurement(f"{REPLAY} {name}", 0, 0, graph, values, windows, True))
    return found


def _parity(switcher: Switcher, shapes: Sequence[Shape], fresh: Sequence[Array], graph: bool) -> dict[str, Any]:
    """Outputs after every ordered pair of shapes against those of a context that never saw another shape.

    Returns:
        transitions, how many of them gave other bits, and the largest difference as a share of the largest value, with
        where it was.
    """
    path = walk(len(shapes), 1, seed=0)
    switcher.output(path[0])
    worst: tuple[float, list[str]] = (0.0, [])
    unequal = 0
    for before, after in pairwise(path):
        output, wanted = (x.astype(np.float64) for x in (switcher.output(after), fresh[after]))
        unequal += not np.array_equal(output, wanted)
        difference = float(np.abs(output - wanted).max() / np.abs(wanted).max())
        if not difference <= worst[0]:  # NaN is the worst
            worst = (difference, [str(shapes[before]), str(shapes[after])])
    return {"cuda_graph": graph, "transitions": len(path) - 1, "unequal": unequal, "difference": worst[0],
            "where": worst[1]}  # fmt: skip


def _unequal(parity: Mapping[str, Any]) -> str:
    if parity["difference"] <= DIFFERENT:
        return ""
    after = " to ".join(parity["where"])
    how = " with CUDA graphs" if parity["cuda_graph"] else ""
    return f"after {after}{how} outputs are not those of a fresh context (by {parity['difference']:.2g} of the largest)"
