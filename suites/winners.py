"""Which rows of a table may be called fastest.

A row wins only by more than processes differ from one another, and only if nothing disturbed it. Where no fair winner
can be named there is none: a table must never name the wrong one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from suites.process_noise import PathKey, noise_of, widened
from suites.record import GPU, Measurement, Record
from suites.stats import Estimate, of_processes, slower, typical

OTHERS_ALLOWED = 0.05
"""Share of the CPU time that other processes may take before times on the CPU say little."""


@dataclass(frozen=True)
class Contender:
    """A valid row: its time, and why it cannot win (empty if it can)."""

    time: Estimate
    excluded: str = ""


def comparable(record: Record, time: Estimate, cuda_graph: bool) -> Estimate:
    """A time that can be compared with that of another process, or of another device of the same name."""
    cell, machine = record.cell, str(record.environment["machine"])
    known = widened(time, noise_of(PathKey(machine, cell.device, cell.backend, cell.precision, cuda_graph)))
    return replace(known, device=str(record.environment.get("uuid", "")))


def fastest(rows: Sequence[Contender], compared: int = 0) -> list[bool]:
    """For each valid row whether it is the fastest, or not slower than the fastest by more than chance explains.

    No row is where only one was compared (`compared` counts invalid rows too), where nothing is known of the spread
    between processes, or where a row that cannot win is faster than the fastest that can: what slows a row down does
    not make it faster.
    """
    able = [row for row in rows if not row.excluded and row.time.freedom]
    if max(len(rows), compared) < 2 or not able:
        return [False] * len(rows)
    best = min(able, key=lambda row: row.time.p50)
    for row in rows:
        if row not in able and (row.time.p50 < best.time.p50 if not row.time.freedom else slower(best.time, row.time)):
            return [False] * len(rows)
    return [row in able and not slower(row.time, best.time) for row in rows]


def over(time: Estimate, other: Estimate) -> str:
    """By how much a time is over another, in percent; called a tie where chance explains it."""
    known = time.freedom and other.freedom
    told = time is other or (known and (slower(time, other) or slower(other, time)))
    tie = "" if told else " (tie)"
    return f"{time.p50 / other.p50 - 1:+.1%}{tie}"


def quickest(record: Record, shapes: Sequence[tuple[int, int]], phases: Sequence[str]) -> Estimate:
    """The sum over `shapes` of the median in ns of the first of `phases` that was measured, plain or as a graph,
    whichever is faster; ready to be compared.

    Raises:
        ValueError: none of the phases was measured at a shape.
    """
    found: dict[int, float] = {}
    graphs = set()
    for shape in shapes:
        measured = [m for m in record.measurements if (m.batch, m.sequence) == shape]
        phase = next((phase for phase in phases if any(m.phase == phase for m in measured)), None)
        if phase is None:
            raise ValueError(f"{record.cell.id}: no {' or '.join(phases)} at {shape}")
        ways = {graph: [m for m in measured if (m.phase, m.cuda_graph) == (phase, graph)] for graph in (False, True)}
        times = {graph: typical([m.samples for m in ways[graph]]) for graph in ways if ways[graph]}
        graph = min(times, key=lambda one: times[one])
        graphs.add(graph)
        for m in ways[graph]:
            found[m.process] = found.get(m.process, 0.0) + float(np.median(m.samples))
    return comparable(record, of_processes(list(found.values())), cuda_graph=graphs == {True})


def ties(times: Sequence[tuple[Record, bool, float]], best: int) -> list[int]:
    """The others that are not slower than the one numbered `best` by more than processes differ. Each has its record,
    whether it replays CUDA graphs, and a time of one process."""
    known = [comparable(record, of_processes([time]), graph) for record, graph, time in times]
    return [
        index
        for index, one in enumerate(known)
        if index != best and (not one.freedom or not known[best].freedom or not slower(one, known[best]))
    ]


def mark(winners: int) -> str:
    """The note of a winning row, of so many."""
    return "**fastest**" if winners == 1 else f"**fastest**, a tie of {winners} rows"


def lost_by(row: Contender, lowest: float) -> str:
    """The note of a row that cannot win, empty for one that can; `lowest` is the lowest time of all valid rows."""
    if not row.excluded:
        return ""
    return f"cannot win{', though its time is the lowest' if row.time.p50 == lowest else ''}: {row.excluded}"


def why_excluded(record: Record, shapes: Collection[tuple[int, int]]) -> list[str]:
    """All that keeps a row at these shapes from being called fastest, each as a phrase."""
    found = [m for m in record.measurements if (m.batch, m.sequence) in shapes]
    reasons = ["not steady after warm-up"] if not all(m.steady for m in found) else []
    return [*reasons, *_throttled(found), *_others_on_gpu(found), *_others_on_cpu(record, found)]


def cpu_others(measurements: Sequence[Measurement]) -> float:
    """The largest share of CPU time that other processes surely took; 0 where it is not known."""
    loads = [m.telemetry for m in measurements if "cpu_others" in m.telemetry]
    sure = [load["cpu_others"] for load in loads if load["cpu_others"] - load["cpu_resolution"] > OTHERS_ALLOWED]
    return max(sure, default=0.0)


def _throttled(found: Sequence[Measurement]) -> list[str]:
    windows = [flag for m in found if m.phase == GPU for flag in m.throttled]
    if not any(windows):
        return []
    reasons = sorted({reason for m in found for reason in m.telemetry.get("throttle_reasons", ())})
    return [f"throttled in {sum(windows)} of {len(windows)} windows ({', '.join(reasons)})"]


def _others_on_gpu(found: Sequence[Measurement]) -> list[str]:
    others = max((m.telemetry.get("other_processes", 0) for m in found), default=0)
    return [f"{others} other process{'es' if others > 1 else ''} on the GPU"] if others else []


def _others_on_cpu(record: Record, found: Sequence[Measurement]) -> list[str]:
    """Of rows timed on the CPU: a GPU's own clock does not see the host."""
    share = cpu_others(found) if record.cell.device == "cpu" else 0.0
    return [f"other processes took {share:.0%} of the CPU time"] if share else []
