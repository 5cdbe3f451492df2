"""Records of suite=serving to markdown: a row for each load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from suites.records.record import Record
from suites.serving.load_verdict import rules_of, verdict
from suites.serving.other_processes import disturbance, limited_searches
from suites.serving.result import FEWEST, SATURATED, SEARCH, HighestLoad, LoadPoint, ServingResult
from suites.serving.strategy_text import batching
from suites.serving.summary_tables import SUMMARY_LEGEND, summary_lines
from suites.tables.markdown import by_machine, digits, fitted, notes_cell, wrapped
from suites.tables.record_sections import record_section
from suites.tables.table import Table

COLUMNS = ("load", "requests/s", "p50 ms", "p90 ms", "p99 ms", "p99.9 ms", "queue p50 ms", "queue p99 ms",
           "batch", "largest", "padding", "graph", "busy", "GPU busy", "mJ/request", "tokenizer µs", "Python µs",
           "late p99 µs", "other CPU", "requests", "rejected", "failed", "notes")  # fmt: skip

LEGEND = f"""\
Latency of requests under load. Each table is one server: a session with the rules of its batches. The requests of a
load arrive whether or not the server keeps up (open loop), or from clients that each wait for an answer (closed loop).

{SUMMARY_LEGEND}
- **load**: requests per second that are offered, or the number of clients. "saturated" has so many clients that the
  next batch is always complete; its requests/s are the highest throughput. "search" is a load of the search for the
  highest load within the latency bound.
- **requests/s**: answers per second, until the last answer.
- **p50, p90, p99, p99.9**: percentiles of the latency, from the scheduled arrival of a request to its answer in host
  memory. A request that arrives while the server is busy waits, and this wait counts. p99 needs 100 answers, and p99.9
  needs 1,000.
- **queue**: part of the latency before the batch of the request starts.
- **batch, largest**: mean and largest number of requests of a batch.
- **padding**: share of padding in the computed tokens. Backends that pack compute it only for rows that fill a batch up
  to a built shape, and up to `pad_to_multiple_of`.
- **graph**: share of the batches that replayed a CUDA graph.
- **busy**: share of the time in which a batch runs in the session, on the host's clock; the mean over all workers.
- **GPU busy**: share of the time in which the GPU ran a kernel, from the driver. Its readings are means over up to a
  second, so those of the first half second of a load do not count.
- **mJ/request**: energy of the GPU for each answer, from its energy counter; empty on a CPU and for less than 0.4 s.
- **tokenizer µs**: time of the tokenizer for each answer, if requests are texts (`serving.input=text`). A worker
  tokenizes the texts of a batch together, before its pass.
- **Python µs**: time of the suite's own Python code for each answer: admit the request, choose the batch, and arrange
  its token ids as arrays. The packing of a backend is part of its session.
- **late p99 µs**: error of the load generator: time after its scheduled arrival at which an idle server noticed a
  request. It is part of the latency.
- **other CPU**: share of the CPU time that other processes took, if it is above 5%. They can delay the server.
- **requests**: number of requests that arrived.
- **rejected**: requests that found a full queue. They have no latency.
- **failed**: requests that are longer than the engine allows, and requests whose pass raised an error.
- **notes**: reasons of failures, and loads that the server cannot keep up with: after the last arrival, it needs more
  than 3% of the schedule and two passes. With few requests, chance can do this. Then the note says so."""


def serving_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Serving", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    return record_section(records, _part, title, summary_lines)


def _part(record: Record) -> list[str]:
    result = record.result
    assert isinstance(result, ServingResult)
    lines = [fitted(COLUMNS, [row_of(point, record) for point in result.points], 1)]
    found = [*(sentences(result) if result.highest else []), *disturbance(result)]
    if found:
        lines += ["", *(wrapped(f"- {sentence}", "  ") for sentence in found)]
    return lines


def title(record: Record) -> str:
    """Return model, backend, precision, lengths and rules of batches of a record."""
    cell = record.cell
    batch, sequence = cell.shapes[-1]
    return f"{cell.model}, {cell.backend} {cell.precision}, up to {batch}x{sequence}: {batching(record)}"


def load_text(point: LoadPoint) -> str:
    """Return the load of a row."""
    if point.purpose == SATURATED:
        return "saturated"
    if not point.offered:
        return f"{point.clients} client{'' if point.clients == 1 else 's'}"
    return f"{digits(point.offered)}{' (search)' if point.purpose == SEARCH else ''}"


def milliseconds(point: LoadPoint, name: str) -> str:
    """Return a percentile of the latency in ms; empty if there are too few answers."""
    return digits(getattr(point.latency, name) / 1e6) if point.answered >= FEWEST.get(name, 1) else ""


def sentences(result: ServingResult) -> list[str]:
    """Return the results of the search for each latency bound in words."""
    decisive = {load for highest in result.highest for load in (highest.load, highest.above)}
    few = any(point.offered in decisive and point.sent < FEWEST["p99"] for point in result.points)
    warning = f"A load of the search had fewer than {FEWEST['p99']} requests; raise suite.seconds."
    return [*map(_sentence, result.highest), *limited_searches(result), *([warning] if few else [])]


def _sentence(highest: HighestLoad) -> str:
    within = f"{highest.percentile:g}% of latencies within {highest.bound_ms:g} ms"
    if highest.load is None:
        return f"No load has {within}: {highest.reason}."
    above = f"{digits(highest.above)} is too high" if highest.above else "no higher load was tried"
    tried = f"{highest.tried} load{'' if highest.tried == 1 else 's'} tried; {above}"
    return f"Highest load with {within}: {digits(highest.load)} requests/s ({tried})."


def notes_of(point: LoadPoint, record: Record) -> list[str]:
    """Return the remarks on a load."""
    return [
        verdict(point, rules_of(record.cell.options)).value,
        f"{point.too_long:,} longer than the engine allows" if point.too_long else "",
        f"{point.errors:,} errors: {point.first_error}" if point.errors else "",
    ]


def row_of(point: LoadPoint, record: Record) -> list[str]:
    """Return the cells of a load."""
    answered, failed = point.answered > 0, point.too_long + point.errors
    padding = 1 - point.tokens / point.padded_tokens if point.padded_tokens else 0.0
    return [
        load_text(point),
        digits(point.achieved) if answered else "0",
        *(milliseconds(point, name) for name in ("p50", "p90", "p99", "p999")),
        _small(point.queue.p50 / 1e6) if answered else "",
        _small(point.queue.p99 / 1e6) if point.answered >= FEWEST["p99"] else "",
        digits(point.mean_batch) if answered else "",
        max(point.batches, key=int) if answered else "",
        f"{padding:.1%}" if answered else "",
        f"{point.replayed / sum(point.batches.values()):.0%}" if point.replayed else "",
        f"{point.session_ns / 1e9 / point.seconds / record.cell.options.get('workers', 1):.0%}"
        if point.seconds
        else "",
        f"{point.gpu_busy:.0%}" if point.gpu_busy is not None else "",
        digits(point.energy_mj) if point.energy_mj is not None else "",
        _small(point.tokenize_ns / point.answered / 1e3) if point.tokenize_ns and answered else "",
        _small(point.python_ns / 1e3) if answered else "",
        _small(point.late.p99 / 1e3) if point.late.max else "",
        f"{point.cpu_others:.0%}" if point.disturbed else "",
        f"{point.sent:,}",
        f"{point.rejected:,}" if point.rejected else "",
        f"{failed:,}" if failed else "",
        notes_cell(*notes_of(point, record)),
    ]


def _small(value: float) -> str:
    """Return a number of at least 0 with three digits."""
    return digits(value) if value >= 0.001 else "0"


TABLES = {
    "serving": Table("suites.serving.tables:serving_tables"),
    "streams": Table("suites.serving.stream_tables:stream_tables"),
}

END_TABLES = "suites.serving.serving_end_tables:serving_end_tables"
"""Function that makes the short tables at the end of a run."""

PLOTS = "suites.serving.load_plot:write_load_plots"
"""Function that writes the plots of a machine."""
