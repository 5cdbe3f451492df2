"""Table of the parts of a request: which part takes the time?"""

from __future__ import annotations

from collections.abc import Sequence

from suites.latency.answer_table import milliseconds
from suites.latency.figures import LatencyRow, latency_rows
from suites.records.measurement import REQUEST_PARTS
from suites.records.record import Record
from suites.tables.distinctions import Distinctions
from suites.tables.markdown import configuration, fitted, joined

PREFIX = "request "

COLUMNS = (
    "backend", "precision", "batch", "seq", "request p50 ms", "tokenize µs", "threads",
    *(f"{phase.removeprefix(PREFIX)} µs" for phase in REQUEST_PARTS), "sum ms", "notes",
)  # fmt: skip

KEYS = COLUMNS.index("tokenize µs")

LEGEND = """\
- **Parts of a request**: medians of the parts, plain or graph, whichever has the faster request. A wait after each part
  separates them. A request has no waits, so **sum** is an upper bound of **request p50**.
- **tokenize µs, threads**: time to make the token ids of the batch from texts, and the threads of the tokenizer. It is
  not in the sum.
- **packing µs**: arranging the inputs, and packing without padding if the backend does so.
- **copy in µs, copy out µs**: copies to and from the device, with the unpacking of packed outputs on the host if there
  is any. **enqueue µs, compute µs**: the step until its call returns, and from then until it is done."""


def parts_table(records: Sequence[Record], common: Distinctions) -> str:
    """Return the table for the records of one model; empty if no record has parts of requests."""
    rows = [row for row in latency_rows(records, {}) if row.best_request and row.parts(row.best_request[0])]
    rows.sort(key=lambda row: (row.sequence, row.batch, (row.best_request or (False, 0.0))[1], row.record.cell.id))
    return fitted(COLUMNS, [_cells(row, common) for row in rows], KEYS) if rows else ""


def _cells(row: LatencyRow, common: Distinctions) -> list[str]:
    assert row.best_request is not None
    graph, request = row.best_request
    parts, tokenization = row.parts(graph), row.record.artifacts.tokenization_notes
    threads = f"{tokenization.threads} ({tokenization.threads_from})" if row.tokenize is not None else ""
    return [
        row.record.cell.backend,
        row.record.cell.precision,
        str(row.batch),
        str(row.sequence),
        milliseconds(request),
        microseconds(row.tokenize),
        threads,
        *(microseconds(parts.get(phase)) for phase in REQUEST_PARTS),
        milliseconds(sum(parts.values())),
        joined("graph" if graph else "", configuration(row.record, common.of(row.record))),
    ]


def microseconds(nanoseconds: float | None) -> str:
    """Return a time in µs without decimals; empty without a time."""
    return "" if nanoseconds is None else f"{nanoseconds / 1e3:,.0f}"
