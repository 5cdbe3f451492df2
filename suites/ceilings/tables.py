"""Records of suite=ceilings to markdown: a row for each operation."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from backends.operations import PRODUCT, Operation
from suites.ceilings.result import Ceiling, CeilingsResult
from suites.records.record import OK, Record
from suites.tables.distinctions import distinctions
from suites.tables.markdown import by_machine, digits, fitted, joined, one_machine
from suites.tables.table import Table

COLUMNS = ("operation", "precision", "size", "figure", "unit", "p50 µs", "p10 µs", "p90 µs", "samples", "notes")

LEGEND = """\
Speed of single operations. No model reaches these figures; the latency tables give the share that it reaches.

- **product**: of two square matrices with random numbers; size is the number of rows. FP8 and INT8 products have the
  second matrix in columns. A product of n rows counts 2 n^3 operations.
- **device copy, copy**: of an array to another one in the same memory; size is that of one array. Both the bytes read
  and the bytes written count.
- **triad**: a = b + s c, by STREAM. The bytes of three arrays count.
- **pinned, pageable**: copies between the memories of host and device; "pinned" means page-locked host memory.
- **kernel launch, graph launch**: time of an empty kernel, or of a CUDA graph with one, back to back; "and wait": until
  the host knows that it is done. The host's part is that of Python.
- **figure**: of the median time. The ceiling of a precision is the product with the highest figure.
- **p50, p10, p90**: percentiles of the time of one step: on a GPU by events, on a CPU and for launches host time.
- **notes**: why an operation was left out, or that its times were not steady after the warm-up."""


def ceilings_tables(records: Iterable[Record]) -> str:
    """Return one section for each machine, with one table for each record."""
    return by_machine("Ceilings", LEGEND, records, _section)


def _section(records: Sequence[Record]) -> str:
    common = distinctions(records)
    lines = ["", one_machine(records), *common.caption()]
    for record in sorted(records, key=lambda record: record.cell.id):
        threads = record.cell.options.get("threads") if record.cell.device == "cpu" else None
        limit = f"threads={threads}" if threads else ""
        lines += ["", f"### {joined(record.cell.release, limit, common.of(record))}", ""]
        lines += [_table(record)] if record.outcome == OK else [f"{record.outcome}: {record.reason}"]
    return "\n".join(lines)


def _table(record: Record) -> str:
    result = record.result
    assert isinstance(result, CeilingsResult)
    rows = [_row(ceiling) for ceiling in result.ceilings]
    rows += [[left.name, left.precision, *[""] * 7, f"left out: {left.reason}"] for left in result.left_out]
    return fitted(COLUMNS, rows, 4)


def size_text(operation: Operation) -> str:
    """Return the rows of a matrix, or the size of an array in MiB; empty for a launch."""
    if not operation.size:
        return ""
    return f"{operation.size:,}" if operation.name == PRODUCT else f"{operation.size >> 20:,} MiB"


def _row(ceiling: Ceiling) -> list[str]:
    operation, samples = ceiling.operation, ceiling.samples
    tenths = statistics.quantiles(samples, n=10, method="inclusive") if len(samples) > 1 else list(samples) * 9
    times = [digits(time / 1e3) for time in (statistics.median(samples), tenths[0], tenths[-1])]
    named = [operation.name, operation.precision, size_text(operation), digits(ceiling.figure), operation.unit]
    return [*named, *times, str(len(samples)), "" if ceiling.steady else "not steady after warm-up"]


TABLES = {"ceilings": Table("suites.ceilings.tables:ceilings_tables")}

END_TABLES = "suites.ceilings.ceilings_end_tables:ceilings_end_tables"
"""Function that makes the short tables at the end of a run."""
