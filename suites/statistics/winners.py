"""Selection of the fastest rows of a table.

A row wins only if the difference is larger than the differences between processes, and only if nothing disturbed the
row. If this cannot be decided, the table has no winner, because a wrong winner is worse.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from suites.measuring.cpu_load import is_disturbed
from suites.records.measurement import GPU, POWER_CAP, Measurement
from suites.records.record import Record
from suites.statistics.noise import Noise, PathKey, noise_of, widened
from suites.statistics.stats import Estimate, best_time, estimate_of_figures, slower, typical


@dataclass(frozen=True)
class Contender:
    """Valid row of a table: its time, and the reason why it cannot win (empty if it can)."""

    time: Estimate
    excluded: str = ""


def comparable(record: Record, time: Estimate, cuda_graph: bool, tokens: int) -> Estimate:
    """Return a time that can be compared with that of another process, or another device of the same name.

    Args:
        record: record of the time.
        time: estimate in any unit, also of a sum of steps.
        cuda_graph: whether the time is of replays of CUDA graphs.
        tokens: batch times sequence length.
    """
    return _with_noise(record, time, noise_of(path_of(record, cuda_graph), tokens))


def comparable_step(record: Record, time: Estimate, path: PathKey, tokens: int) -> Estimate:
    """Return the time in ns of one step or one request of a path, for a comparison as by `comparable`."""
    return _with_noise(record, time, noise_of(path, tokens, time.p50))


def path_of(record: Record, cuda_graph: bool, request: bool = False) -> PathKey:
    """Return the path of a time: with or without CUDA graph, of a step or of a request."""
    cell = record.cell
    return PathKey(record.environment.machine, cell.device, cell.backend, cell.precision, cuda_graph, request)


def _with_noise(record: Record, time: Estimate, noise: Noise | None) -> Estimate:
    return replace(widened(time, noise), device=record.environment.uuid)


def fastest(rows: Sequence[Contender], compared: int = 0) -> list[bool]:
    """Return for each valid row whether it is the fastest, or not slower than the fastest by more than chance explains.

    There is no winner in three cases: only one row was compared (`compared` counts invalid rows too); the spread
    between processes is not known; or a row that cannot win is faster than the fastest row that can. In the last case
    the row is the fastest although a disturbance slowed it down.
    """
    able = [row for row in rows if not row.excluded and row.time.freedom]
    if max(len(rows), compared) < 2 or not able:
        return [False] * len(rows)
    best = min(able, key=lambda row: row.time.p50)
    for row in rows:
        if row not in able and (row.time.p50 < best.time.p50 if not row.time.freedom else slower(best.time, row.time)):
            return [False] * len(rows)
    return [row in able and not slower(row.time, best.time) for row in rows]


def no_winner(rows: Sequence[Contender]) -> str:
    """Return the reason why `fastest` names none of these valid rows; empty if it names one."""
    if any(fastest(rows)):
        return ""
    able = [row for row in rows if not row.excluded and row.time.freedom]
    if len(rows) < 2:
        return "only one valid row" if rows else "no valid row"
    if able:
        best = min(row.time.p50 for row in able)
        disturbed = any(row.excluded and row.time.p50 < best for row in rows)
        return f"a row that {'cannot win' if disturbed else 'has one process'} may be faster"
    if all(row.excluded for row in rows):
        return "every valid row was disturbed or not steady"
    return "the spread between processes is not known"


def over(time: Estimate, other: Estimate) -> str:
    """Return the difference of a time to another in percent, with the note "(tie)" if chance explains it."""
    comparable_times = time.freedom and other.freedom
    decided = time is other or (comparable_times and (slower(time, other) or slower(other, time)))
    tie = "" if decided else " (tie)"
    return f"{time.p50 / other.p50 - 1:+.1%}{tie}"


def fastest_time(record: Record, shapes: Sequence[tuple[int, int]], phases: Sequence[str]) -> Estimate:
    """Return the sum over `shapes` of the median times in ns, as an estimate that can be compared.

    Each shape counts with the first of `phases` that was measured, and with or without CUDA graph, whichever is faster.

    Raises:
        ValueError: none of the phases was measured at a shape.
    """
    sums: dict[int, float] = {}
    graphs = set()
    for shape in shapes:
        measured = [m for m in record.measurements if m.shape == shape]
        phase = next((phase for phase in phases if any(m.phase == phase for m in measured)), None)
        if phase is None:
            raise ValueError(f"{record.cell.id}: no {' or '.join(phases)} at {shape}")
        by_graph = {
            graph: [m for m in measured if (m.phase, m.cuda_graph) == (phase, graph)] for graph in (False, True)
        }
        times = {graph: typical([m.samples for m in by_graph[graph]]) for graph in by_graph if by_graph[graph]}
        graph, _ = best_time(times)
        graphs.add(graph)
        for m in by_graph[graph]:
            sums[m.process] = sums.get(m.process, 0.0) + float(np.median(m.samples))
    smallest = min(batch * sequence for batch, sequence in shapes)
    return comparable(record, estimate_of_figures(list(sums.values())), graphs == {True}, smallest)


def ties(times: Sequence[tuple[Record, bool, float]], best: int) -> list[int]:
    """Return the indices of the times that tie with the best one: they are not slower by more than processes differ.

    Args:
        times: record, whether CUDA graphs are replayed, and the time of one process.
        best: index of the best time.
    """
    estimates = [
        comparable(
            record, estimate_of_figures([time]), graph, min(batch * sequence for batch, sequence in record.cell.shapes)
        )
        for record, graph, time in times
    ]
    return [
        index
        for index, estimate in enumerate(estimates)
        if index != best
        and (not estimate.freedom or not estimates[best].freedom or not slower(estimate, estimates[best]))
    ]


def mark(winners: int) -> str:
    """Return the note of a winning row; `winners` is the number of winning rows."""
    return "**fastest**" if winners == 1 else f"**fastest**, a tie of {winners} rows"


def cannot_win_note(row: Contender, lowest: float) -> str:
    """Return the note of a row that cannot win, else an empty text; `lowest` is the lowest time of all valid rows."""
    if not row.excluded:
        return ""
    return f"cannot win{', though its time is the lowest' if row.time.p50 == lowest else ''}: {row.excluded}"


def why_excluded(record: Record, shapes: Collection[tuple[int, int]], request: bool = False) -> list[str]:
    """Return the reasons why a row at these shapes cannot win, each as a phrase.

    Args:
        request: whether the rows are compared by times of requests. These depend on the host also on a GPU.
    """
    measurements = [m for m in record.measurements if m.shape in shapes]
    reasons = ["not steady after warm-up"] if not all(m.steady for m in measurements) else []
    share = cpu_others(measurements) if request or record.cell.device == "cpu" else 0.0
    others = [f"other processes took {share:.0%} of the CPU time"] if share else []
    return [*reasons, *_slowed(measurements), *_others_on_gpu(measurements), *others]


def cpu_others(measurements: Sequence[Measurement]) -> float:
    """Return the largest reliable share of CPU time that other processes took; 0 if it is small or not known."""
    loads = [m.telemetry.cpu for m in measurements if m.telemetry.cpu is not None]
    sure = [load.cpu_others for load in loads if is_disturbed(load.cpu_others, load.cpu_resolution)]
    return max(sure, default=0.0)


def power_note(record: Record, shapes: Collection[tuple[int, int]]) -> str:
    """Return the note of a row that ran at the power limit of its GPU, else an empty text.

    The limit is no disturbance: large products reach it on a GPU that nothing else uses, and in production too.
    """
    share, reasons = _throttled([m for m in record.measurements if m.shape in shapes])
    return f"at the power limit in {share}" if POWER_CAP in reasons else ""


def _slowed(measurements: Sequence[Measurement]) -> list[str]:
    share, reasons = _throttled(measurements)
    others = [reason for reason in reasons if reason != POWER_CAP]
    return [f"throttled in {share} ({', '.join(others)})"] if share and (others or not reasons) else []


def _throttled(measurements: Sequence[Measurement]) -> tuple[str, list[str]]:
    """Return the share of windows with throttling as text, empty if there is none, and the reasons of the GPU."""
    windows = [flag for m in measurements if m.phase == GPU for flag in m.throttled]
    if not any(windows):
        return "", []
    reasons = sorted({reason for m in measurements for reason in m.telemetry.throttle_reasons or ()})
    return f"{sum(windows)} of {len(windows)} windows", reasons


def _others_on_gpu(measurements: Sequence[Measurement]) -> list[str]:
    others = max((m.telemetry.other_processes or 0 for m in measurements), default=0)
    return [f"{others} other process{'es' if others > 1 else ''} on the GPU"] if others else []
