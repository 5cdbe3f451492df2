"""Figures of latency records for the page: rows of all workloads, and the fastest rows of each shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from suites.html_report.record_facts import Json, rounded, task_differences
from suites.latency.achieved import achieved, bandwidth, ceiling, intensity
from suites.latency.figures import LatencyRow
from suites.latency.ranking import Baseline, RankedRow, Ranking, rankings
from suites.records.measurement import COPY_IN, COPY_OUT, PACKING
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.stats import Estimate
from suites.statistics.validity import Judged
from suites.tables.distinctions import Distinctions, distinctions
from suites.tables.markdown import configuration, joined

Number = Callable[[Record], int]
"""Gives a record's number in the list of records of the page."""

BASELINE = Baseline()

PARTS = {"packing_ms": PACKING, "copy_in_ms": COPY_IN, "copy_out_ms": COPY_OUT}
"""Parts of a request that the page shows besides the step."""


def latency_data(
    records: Sequence[Record], scores: Judged, number: Number, rank: Rank = Rank.gpu, ceilings: Sequence[Record] = ()
) -> Sequence[Json]:
    """Return an object for each workload of a machine: its names, rows, answers and ceilings.

    Args:
        ceilings: records of suite=ceilings of the machine.
    """
    by_workload = groupby(rankings(records, scores, BASELINE, rank), key=lambda ranking: ranking.workload)
    return [
        {"machine": workload.machine, "name": str(workload), **_workload(list(members), number, ceilings)}
        for workload, members in by_workload
    ]


def _workload(members: Sequence[Ranking], number: Number, ceilings: Sequence[Record]) -> Json:
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
    measured = [ranked.row.record for ranking in members for ranked in ranking.rows]
    return {"rows": rows, "answers": answers, "roofs": _roofs(measured, ceilings)}


def _roofs(measured: Sequence[Record], ceilings: Sequence[Record]) -> Json:
    """Return the highest TFLOP/s by precision, and the highest GB/s of the memory; empty if one of both is missing."""
    by_precision = {record.cell.precision: ceiling(record, ceilings) for record in measured}
    rates = {precision: rounded(rate) for precision, rate in by_precision.items() if rate}
    memory = max((rate for record in measured if (rate := bandwidth(record, ceilings))), default=None)
    return {"tflops": rates, "gb_s": rounded(memory)} if rates and memory else {}


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
        "speedup": rounded(ranked.speedup),
        "fastest": ranked.verdict.winners,
        "excluded": ranked.excluded,
        "invalid": bool(row.problems),
        "tokens_s": rounded(row.tokens_per_second) if row.pace > 0 else None,
        "tflops": rounded(achieved(row)),
        "intensity": rounded(intensity(row)),
        "memory_mb": rounded(row.peak_bytes, 1e6),
        "energy_mj": rounded(row.energy_mj),
        **_request(row),
        "cosine": rounded(row.cosine, digits=9),
        "tasks": task_differences(row),
    }


def _request(row: LatencyRow) -> Mapping[str, float | None]:
    """Return the parts of a request in ms, with the CUDA graph if that is faster."""
    return {
        **{name: rounded(row.typical(phase, row.graph), 1e6) for name, phase in PARTS.items()},
        "enqueue_ms": rounded(row.enqueue(row.graph), 1e6),
        "step_ms": rounded(row.times[row.graph].p50, 1e6),
        "request_ms": rounded(row.request(row.graph), 1e6),
    }


def _milliseconds(time: Estimate) -> Sequence[float | None]:
    return [rounded(value, 1e6) for value in (time.p50, time.low, time.high)]
