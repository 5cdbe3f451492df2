"""Rankings: the rows of one workload and shape by speed, each with its ratio to a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from suites.latency.figures import LatencyRow, Verdict, latency_rows, verdicts
from suites.records.record import Record
from suites.schema.enums import Rank
from suites.statistics.validity import Judged
from suites.tables.markdown import machine_title
from suites.tables.models import model_names, output_text


@dataclass(frozen=True)
class Baseline:
    """The rows that other rows are compared with."""

    backend: str = "torch_eager"
    precision: str = "fp32"

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"

    @classmethod
    def parse(cls, text: str) -> Baseline:
        """Return the baseline in "BACKEND/PRECISION"; the precision is fp32 if it is missing."""
        backend, _, precision = text.partition("/")
        return cls(backend, precision or cls.precision)

    def matches(self, row: LatencyRow) -> bool:
        """Return whether a row is one of the baseline's rows."""
        return (row.record.cell.backend, row.record.cell.precision) == (self.backend, self.precision)


@dataclass(frozen=True, order=True)
class Workload:
    """Records whose rows can be compared: one machine, one model with its weights and output, one distribution of
    lengths.

    `output` is as in `output_text`.
    """

    machine: str
    model: str
    weights: str
    lengths: str
    tokens: str
    output: str = ""

    def __str__(self) -> str:
        if self.model == "none":
            return "no model"
        return f"{self.model}, {self.weights} weights, {self.lengths} lengths, {self.tokens} tokens{self.output}"


@dataclass(frozen=True)
class RankedRow:
    """A row with its place.

    Attributes:
        verdict: whether the row is among the fastest, or why it cannot win.
        speedup: best time of the baseline, divided by the best time of this row; None without a baseline.
    """

    row: LatencyRow
    verdict: Verdict
    speedup: float | None

    @property
    def fastest(self) -> bool:
        return self.verdict.winners > 0

    @property
    def excluded(self) -> str:
        """The reason why the row is invalid or cannot win; empty if it could win."""
        if self.row.problems:
            return f"invalid: {'; '.join(self.row.problems)}"
        return self.row.contender.excluded and f"cannot win: {self.row.contender.excluded}"


RANK_NAMES = {
    Rank.gpu: "GPU time of a step with inputs on the device (on a CPU, host time)",
    Rank.request: "request time, from token ids to the answer in host memory",
}
"""Description of the time that each rank compares."""


@dataclass(frozen=True)
class Ranking:
    """Rows of one workload and shape. The valid rows come first; both groups are sorted by time, fastest first."""

    workload: Workload
    batch: int
    sequence: int
    rows: Sequence[RankedRow]

    @property
    def winners(self) -> list[RankedRow]:
        """The rows that are fastest, or tie with the fastest row; empty if the records do not decide."""
        return [row for row in self.rows if row.fastest]


def rankings(
    records: Iterable[Record], scores: Judged, baseline: Baseline | None = None, rank: Rank = Rank.gpu
) -> list[Ranking]:
    """Return a ranking for each workload and shape with a measured row, sorted by workload, sequence and batch.

    Args:
        records: records of suite=latency. Records whose batches run in several passes are skipped.
        scores: task scores by path, from `validity.judged`.
        baseline: rows that define a speed-up of 1.
        rank: the time by which rows are sorted and compared. A row without such a time has no place.
    """
    single_pass = [record for record in records if "passes" not in record.cell.lengths]
    names = model_names(single_pass)
    rows = latency_rows(single_pass, scores, rank)

    def place(row: LatencyRow) -> tuple[Workload, int, int]:
        cell = row.record.cell
        machine, lengths = machine_title(row.record), str(cell.lengths.get("distribution", ""))
        return (
            Workload(machine, names(row.record), cell.weights, lengths, tokens_of(row.record), output_text(cell)),
            row.sequence,
            row.batch,
        )

    return [
        Ranking(workload, batch, sequence, _ranked(list(members), baseline or Baseline()))
        for (workload, sequence, batch), members in groupby(sorted(rows, key=place), key=place)
    ]


def tokens_of(record: Record) -> str:
    """Return the kind of token ids. A record with inputs names the kind that "auto" selected."""
    if record.artifacts.inputs:
        return record.artifacts.inputs.notes.tokens
    return str(record.cell.lengths.get("tokens", ""))


def _ranked(rows: Sequence[LatencyRow], baseline: Baseline) -> list[RankedRow]:
    base = [row.best.p50 for row in rows if baseline.matches(row) and not row.problems]
    ranked = [
        RankedRow(row, verdict, min(base) / row.best.p50 if base else None)
        for row, verdict in zip(rows, verdicts(rows), strict=True)
    ]
    return sorted(ranked, key=lambda item: (bool(item.row.problems), item.row.best.p50, item.row.record.cell.id))
