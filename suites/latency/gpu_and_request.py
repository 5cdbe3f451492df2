"""Is the row that is fastest on the GPU also the fastest by request time? If it is not, which part takes the time?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from suites.latency.answer_table import milliseconds
from suites.latency.figures import LatencyRow
from suites.latency.ranking import Ranking, rankings
from suites.latency.request_parts import PREFIX
from suites.records.record import Record
from suites.statistics.validity import Judged, judged
from suites.tables.markdown import by_machine, fitted, machine_title

NEAR = 1.05
"""Largest ratio of two request times that counts as equal."""

COLUMNS = (
    "batch", "seq", "fastest on the GPU", "GPU ms", "request ms", "fastest by request", "its ms", "ratio", "notes",
)  # fmt: skip

LEGEND = f"""\
A row for each shape, among the valid rows. Times are medians, plain or graph, whichever is faster.

- **fastest on the GPU, fastest by request**: the row with the lowest GPU time of a step, and the row with the lowest
  request time: token ids in host memory in, answer in host memory out. *graph*: the request replays a CUDA graph.
- **request ms, its ms**: request times of these two rows.
- Rows of an older timing count only where their backend and precision have no newer row at that shape.
- **ratio**: request time of the row that is fastest on the GPU, divided by the lowest request time.
- **notes**: for a ratio above {NEAR}, the part of a request that adds most to the difference. Where the records have
  no parts, it is the time beyond the GPU time of a step."""


@dataclass(frozen=True)
class RequestRow:
    """A row with a request time.

    Attributes:
        graph: whether the request replays a CUDA graph.
        request: time of the request in ns.
    """

    row: LatencyRow
    graph: bool
    request: float

    @property
    def name(self) -> str:
        cell = self.row.record.cell
        return f"{cell.backend} {cell.precision}{', graph' if self.graph else ''}"


@dataclass(frozen=True)
class Pair:
    """The valid rows of one shape with the lowest time of a step on the GPU, and with the lowest request time."""

    by_gpu: RequestRow
    by_request: RequestRow

    @property
    def ratio(self) -> float:
        """Request time of the row that is fastest on the GPU, relative to the lowest one."""
        return self.by_gpu.request / self.by_request.request

    @property
    def reason(self) -> str:
        """The part of a request that explains the ratio; empty if the ratio is small."""
        if self.ratio <= NEAR:
            return ""
        one, other = (item.row.parts(item.graph) for item in (self.by_gpu, self.by_request))
        if not one or one.keys() != other.keys():
            beyond = [item.request - item.row.times[item.graph].p50 for item in (self.by_gpu, self.by_request)]
            return f"beyond the GPU: {milliseconds(beyond[0])} ms instead of {milliseconds(beyond[1])} ms"
        part = max(one, key=lambda phase: one[phase] - other[phase])
        times = f"{milliseconds(one[part])} ms instead of {milliseconds(other[part])} ms"
        return f"{part.removeprefix(PREFIX)}: {times}"


def pairs(records: Iterable[Record], scores: Judged) -> list[tuple[Ranking, Pair]]:
    """Return the fastest rows of each workload and shape on a GPU, where two valid rows have a request time."""
    on_gpu = [record for record in records if record.cell.device == "cuda"]
    found = []
    for ranking in rankings(on_gpu, scores):
        valid = [item.row for item in ranking.rows if not item.row.problems]
        rows = _newest([RequestRow(row, *best) for row in valid if (best := row.best_request) is not None])
        if len(rows) > 1:
            by_gpu = min(rows, key=lambda item: item.row.best.p50)
            found.append((ranking, Pair(by_gpu, min(rows, key=lambda item: item.request))))
    return found


def _newest(rows: Sequence[RequestRow]) -> list[RequestRow]:
    """Return the rows whose backend and precision have no row of a newer timing: its requests contain other work."""
    cells = [(item.row.record.cell.backend, item.row.record.cell.precision) for item in rows]
    versions = [item.row.record.harness for item in rows]
    newest = {cell: max(v for c, v in zip(cells, versions, strict=True) if c == cell) for cell in cells}
    return [item for item, cell, version in zip(rows, cells, versions, strict=True) if version == newest[cell]]


def gpu_and_request_tables(records: Iterable[Record], accuracy: Iterable[Record] = ()) -> str:
    """Return one section for each machine with a GPU, with one table for each workload; empty without such records."""
    on_gpu, scores = [record for record in records if record.cell.device == "cuda"], judged(accuracy)
    if not pairs(on_gpu, scores):
        return ""
    return by_machine("GPU time and request time", LEGEND, on_gpu, lambda group: _section(group, scores))


def _section(records: Sequence[Record], scores: Judged) -> str:
    lines = ["", f"## {machine_title(records[0])}"]
    for workload, members in groupby(pairs(records, scores), key=lambda item: item[0].workload):
        of_workload = list(members)
        near = sum(pair.ratio <= NEAR for _, pair in of_workload)
        count = f"Within 5% of the lowest request time: {near} of {len(of_workload)} shapes."
        rows = [_cells(ranking, pair) for ranking, pair in of_workload]
        lines += ["", f"### {workload}", "", count, "", fitted(COLUMNS, rows, 2)]
    return "\n".join(lines)


def _cells(ranking: Ranking, pair: Pair) -> list[str]:
    gpu, request = pair.by_gpu, pair.by_request
    times = [milliseconds(gpu.row.best.p50), milliseconds(gpu.request)]
    shape = [str(ranking.batch), str(ranking.sequence)]
    return [*shape, gpu.name, *times, request.name, milliseconds(request.request), f"{pair.ratio:.2f}", pair.reason]
