"""A batch of twelve cells on one and on two GPUs of a host, from the records of both runs.

A record has the time of its end and the seconds of its stages, so the records alone show when each GPU was in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from docs.generate.loads import H200
from docs.generate.results import ROOT
from suites.latency.figures import latency_rows
from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.tables.markdown import digits, markdown, wrapped

BATCHES = ROOT / "results" / "batches"


@dataclass(frozen=True)
class BatchRun:
    """Records of one run of the batch, in the order in which the cells ended."""

    records: Sequence[Record]

    @cached_property
    def seconds(self) -> float:
        """Seconds from the start of the first cell to the end of the last one."""
        return (max(map(end_of, self.records)) - min(map(start_of, self.records))).total_seconds()

    @cached_property
    def work_s(self) -> float:
        """Sum of the seconds of all cells."""
        return sum(sum(record.stages.values()) for record in self.records)

    def record(self, cell_id: str) -> Record | None:
        return next((record for record in self.records if record.cell.id == cell_id), None)


def batch_run(name: str) -> BatchRun:
    """Return the run `one_gpu` or `two_gpus`."""
    return BatchRun(sorted(MachineFolder(BATCHES / name, H200).records("latency"), key=end_of))


def end_of(record: Record) -> datetime:
    return datetime.fromisoformat(record.measured_at)


def start_of(record: Record) -> datetime:
    return end_of(record) - timedelta(seconds=sum(record.stages.values()))


def graph_p50_ms(record: Record) -> float:
    """Return the median of a CUDA graph at the largest shape, in ms."""
    (row,) = [row for row in latency_rows([record], {}) if row.shape == record.cell.shapes[-1]]
    return row.times[True].p50 / 1e6


def two_gpu_table() -> str:
    """Return a row for each cell with its times on one and on two GPUs, and the seconds of both runs."""
    one, two = batch_run("one_gpu"), batch_run("two_gpus")
    places = {uuid: str(number) for number, uuid in enumerate(sorted({_uuid(record) for record in two.records}))}
    rows = [_row(record, one.record(record.cell.id), places) for record in two.records]
    table = markdown(("backend", "batch", "GPU", "seconds", "p50 ms", "p50 ms on one GPU", "change"), rows)
    sentences = (
        f"On two GPUs the {len(two.records)} cells took {two.seconds:.0f} s, {two.seconds / two.work_s:.2f} of the sum "
        f"of their seconds, {two.work_s:.0f} s.",
        f"On one GPU {len(one.records)} of them took {one.seconds:.0f} s. Engines for other runs were built on the "
        "other GPU at the same time, on the other half of the CPU cores, so cells took longer.",
    )
    return "\n".join([table, "", *(wrapped(f"- {sentence}", "  ") for sentence in sentences)])


def _row(record: Record, single: Record | None, places: dict[str, str]) -> list[str]:
    cell, p50 = record.cell, graph_p50_ms(record)
    alone = None if single is None else graph_p50_ms(single)
    batches = sorted({batch for batch, _ in cell.shapes})
    return [
        f"{cell.backend} {cell.precision}",
        ", ".join(map(str, batches)),
        places[_uuid(record)],
        f"{sum(record.stages.values()):.0f}",
        digits(p50),
        "" if alone is None else digits(alone),
        "" if alone is None else f"{p50 / alone - 1:+.1%}",
    ]


def _uuid(record: Record) -> str:
    return record.environment.uuid
