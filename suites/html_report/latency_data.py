"""Figures of latency records for the page: rows of all workloads, and the fastest rows of each shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from suites.html_report.record_facts import Json, task_differences
from suites.latency.figures import LatencyRow
from suites.latency.ranking import Baseline, RankedRow, Ranking, rankings
from suites.records.record import Record
from suites.statistics.stats import Estimate
from suites.statistics.validity import Judged
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.markdown import configuration, joined

Number = Callable[[Record], int]
"""Gives a record's number in the list of records of the page."""

BASELINE = Baseline()


def latency_data(records: Sequence[Record], scores: Judged, number: Number) -> Sequence[Json]:
    """Return an object for each workload of a machine: its names, rows and answers."""
    by_workload = groupby(rankings(records, scores, BASELINE), key=lambda ranking: ranking.workload)
    return [
        {"machine": workload.machine, "name": str(workload), **_workload(list(members), number)}
        for workload, members in by_workload
    ]


def _workload(members: Sequence[Ranking], number: Number) -> Json:
    common = distinctions([ranked.row.record for ranking in members for ranked in ranking.rows])
    rows: list[Json] = []
    answers: list[Json] = []
    for ranking in members:
        first = len(rows)
        rows += [_row(ranked, common, number) for ranked in ranking.rows]
        best = next((index for index, ranked in enumerate(ranking.rows) if not ranked.row.problems), None)
        answers.append(
            {
                "batch": ranking.batch,
                "sequence": ranking.sequence,
                "winners": [first + index for index, ranked in enumerate(ranking.rows) if ranked.fastest],
                "lowest": None if best is None else first + best,
                "rows": len(ranking.rows),
            }
        )
    return {"rows": rows, "answers": answers}


def _row(ranked: RankedRow, common: Distinctions, number: Number) -> Json:
    row, record = ranked.row, ranked.row.record
    options = joined(record.cell.release, configuration(record, common.of(record)))
    return {
        "record": number(record),
        "batch": row.batch,
        "sequence": row.sequence,
        "options": options,
        "graph": row.graph,
        "time": _milliseconds(row.best),
        "processes": row.best.processes,
        "speedup": _rounded(ranked.speedup),
        "fastest": ranked.verdict.winners,
        "excluded": ranked.excluded,
        "invalid": bool(row.problems),
        "tokens_s": _rounded(row.tokens_per_second),
        "sequences_s": _rounded(row.sequences_per_second),
        "memory_mb": _rounded(row.peak_bytes, 1e6),
        "energy_mj": _rounded(row.energy_mj),
        **_request(row),
        "cosine": _rounded(row.cosine, digits=9),
        "tasks": {task: [_rounded(value) for value in values] for task, values in task_differences(row).items()},
    }


def _request(row: LatencyRow) -> Mapping[str, float | None]:
    """Return the parts of a request in ms, with the CUDA graph if that is faster."""
    return {
        "enqueue_ms": _rounded(row.enqueue(row.graph), 1e6),
        "step_ms": _rounded(row.best.p50, 1e6),
        "request_ms": _rounded(row.end_to_end(row.graph), 1e6),
    }


def _milliseconds(time: Estimate) -> Sequence[float | None]:
    return [_rounded(value, 1e6) for value in (time.p50, time.low, time.high)]


def _rounded(value: float | None, unit: float = 1.0, digits: int = 6) -> float | None:
    """Return a figure in another unit, with significant digits that no reader misses."""
    return None if value is None else float(f"{value / unit:.{digits}g}")
