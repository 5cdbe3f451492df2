"""Rows of data from records of suite=latency: one for each cell, shape, and setting of CUDA graphs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from suites.data_out.data_row import DataRow
from suites.data_out.record_data import record_row
from suites.latency.achieved import achieved_with, ceiling, share
from suites.latency.figures import LatencyRow, latency_rows
from suites.latency.ranking import RankedRow, rankings
from suites.records.measurement import COMPUTE, COPY_IN, COPY_OUT, GPU, PACKING, REQUEST_ENQUEUE
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.validity import Judged

NOT_CHOSEN = "a search tried this cell and did not choose it"
PASSES = "a batch runs in several passes; see workloads.md"

Place = tuple[str, int, int]
"""Cell id, batch and sequence."""


def latency_data(
    records: Sequence[Record],
    scores: Judged,
    not_chosen: Collection[str] = (),
    rank: Rank = Rank.gpu,
    ceilings: Sequence[Record] = (),
) -> list[DataRow]:
    """Return the rows of latency records of one machine.

    A shape without measurements has one row with the outcome of its cell. So has a shape of a cell that runs a batch in
    several passes: its times are those of passes, not of a batch.

    Args:
        scores: task scores by path, from `validity.judged`.
        not_chosen: ids of cells that a search tried and did not choose. They do not compete for the first place.
        rank: the time by which rows compete for the first place.
        ceilings: records of suite=ceilings of the machine.
    """
    competing = [record for record in records if record.cell.id not in not_chosen]
    ranked: dict[Place, RankedRow] = {
        (item.row.record.cell.id, item.row.batch, item.row.sequence): item
        for ranking in rankings(competing, scores, rank=rank)
        for item in ranking.rows
    }
    rows = []
    for record in records:
        passes = "passes" in record.cell.lengths
        measured = {} if passes else {row.shape: row for row in latency_rows([record], scores)}
        for shape in record.cell.shapes:
            if shape in measured:
                most = ceiling(record, ceilings)
                rows += [_with_rate(row, measured[shape], most) for row in _shape_rows(measured[shape], ranked, rank)]
            else:
                row = replace(record_row(record), batch=shape[0], sequence=shape[1], fastest=False)
                rows.append(replace(row, excluded=PASSES) if passes else row)
    return rows


def _with_rate(row: DataRow, figures: LatencyRow, most: float | None) -> DataRow:
    """Return a row with its operations per second, and their share of the ceiling `most` in TFLOP/s."""
    rate = achieved_with(figures, bool(row.cuda_graph))
    return replace(row, tflops=rate, ceiling_percent=share(rate, most))


def _shape_rows(row: LatencyRow, ranked: Mapping[Place, RankedRow], rank: Rank) -> list[DataRow]:
    """Return a row for plain steps and one for CUDA graphs, as far as they were measured."""
    place = ranked.get((row.record.cell.id, *row.shape))
    best = place.row.graph if place else row.graph
    common = replace(
        record_row(row.record),
        batch=row.batch,
        sequence=row.sequence,
        tokens=_tokens(row),
        clock="gpu" if row.phase == GPU else "host",
        cosine=row.cosine,
        peak_mb=None if row.peak_bytes is None else row.peak_bytes / 1e6,
        tokenize_p50_ms=_ms(row.tokenize),
        rank=rank.name,
        excluded=place.excluded if place else NOT_CHOSEN,
    )
    return [
        replace(_times(common, row, graph), fastest=bool(place and place.fastest and graph == best))
        for graph in row.times
    ]


def _times(common: DataRow, row: LatencyRow, graph: bool) -> DataRow:
    time, pace = row.times[graph], row.pace_of(graph)
    return replace(
        common,
        cuda_graph=graph,
        p50_ms=time.p50 / 1e6,
        p50_low_ms=time.low / 1e6,
        p50_high_ms=time.high / 1e6,
        p90_ms=_ms(row.percentile(90, graph)),
        p99_ms=_ms(row.percentile(99, graph)),
        enqueue_p50_ms=_ms(row.enqueue(graph)),
        end_to_end_p50_ms=_ms(row.request(graph)),
        request_packing_p50_ms=_ms(row.typical(PACKING, graph)),
        request_copy_in_p50_ms=_ms(row.typical(COPY_IN, graph)),
        request_enqueue_p50_ms=_ms(row.typical(REQUEST_ENQUEUE, graph)),
        request_compute_p50_ms=_ms(row.typical(COMPUTE, graph)),
        request_copy_out_p50_ms=_ms(row.typical(COPY_OUT, graph)),
        sequences_per_second=row.batch / pace * 1e9 if pace else None,
        tokens_per_second=common.tokens / pace * 1e9 if pace and common.tokens is not None else None,
        energy_mj_per_sequence=row.energy_of(graph),
        processes=time.processes,
        samples=time.count,
    )


def _ms(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6


def _tokens(row: LatencyRow) -> int | None:
    """Return the tokens of a batch; None if the record does not have their number."""
    try:
        return row.tokens
    except KeyError:
        return None
