"""Table of the parts of a request: which part takes the time?"""

from __future__ import annotations

from collections.abc import Sequence

from suites.latency.figures import LatencyRow, latency_rows
from suites.records.measurement import REQUEST_PARTS
from suites.records.record import Record
from suites.tables.distinctions import Distinctions
from suites.tables.markdown import configuration, fitted, notes_cell

PREFIX = "request "

COLUMNS = (
    "backend", "batch", "seq", "request µs", *(phase.removeprefix(PREFIX) for phase in REQUEST_PARTS), "sum", "notes",
)  # fmt: skip

KEYS = COLUMNS.index("request µs")

LEGEND = """\
- **Parts of a request**: medians in µs, plain or graph, whichever has the faster request. A wait after each part
  separates them. A request has no waits, and with a CUDA graph of TensorRT or PyTorch its copies are in the graph. So
  **sum** is an upper bound of **request µs**.
- **packing**: arranging the inputs, without padding if the backend packs tokens. **copy in, copy out**: copies to and
  from the device; a backend that packs tokens may unpack its output in the second one. **enqueue, compute**: the step
  until its call returns, and from then until it is done. On a CPU, compute is the whole step.
- The line below this table names the threads of the tokenizer, and the source of their number."""


def parts_table(records: Sequence[Record], common: Distinctions) -> str:
    """Return the table for the records of one model; empty if no record has parts of requests or of the tokenizer."""
    rows = [row for row in latency_rows(records, {}) if row.best_request and row.parts(row.best_request[0])]
    rows.sort(key=lambda row: (row.sequence, row.batch, (row.best_request or (False, 0.0))[1], row.record.cell.id))
    notes = [record.artifacts.tokenization_notes for record in records if record.artifacts.tokenization]
    threads = sorted({f"{note.threads} ({note.threads_from})" for note in notes})
    table = fitted(COLUMNS, [_cells(row, common) for row in rows], KEYS) if rows else ""
    line = f"Threads of the tokenizer: {', '.join(threads)}." if threads else ""
    return "\n\n".join(text for text in (table, line) if text)


def _cells(row: LatencyRow, common: Distinctions) -> list[str]:
    assert row.best_request is not None
    graph, request = row.best_request
    parts, cell = row.parts(graph), row.record.cell
    return [
        f"{cell.backend} {cell.precision}",
        str(row.batch),
        str(row.sequence),
        microseconds(request),
        *(microseconds(parts.get(phase)) for phase in REQUEST_PARTS),
        microseconds(sum(parts.values())),
        notes_cell("graph" if graph else "", configuration(row.record, common.of(row.record))),
    ]


def microseconds(nanoseconds: float | None) -> str:
    """Return a time in µs without decimals; empty without a time."""
    return "" if nanoseconds is None else f"{nanoseconds / 1e3:,.0f}"
