"""Bring results/tables up to date with results/records: `python -m suites.report [RESULTS]`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from suites.accuracy_table import accuracy_tables
from suites.kernel_table import kernel_tables
from suites.layers_table import layers_tables
from suites.record import Record, read_records, write_whole
from suites.search_table import search_tables
from suites.table import latency_tables

SUITES: Mapping[str, Callable[[Sequence[Record], Path], str]] = {
    "latency": lambda records, results: latency_tables(records, read_records(results, "accuracy")),
    "accuracy": lambda records, results: accuracy_tables(records),
    "layers": lambda records, results: layers_tables(records),
    "search": search_tables,
}
"""What makes a suite's tables of some of its records; the folder of results holds what else they need, such as the
accuracy that says which latencies count."""


def write_tables(results: Path) -> list[Path]:
    """Write one table a suite that has records, and one of kernels if any were profiled; returns the files.

    Raises:
        ValueError: a file among the records is none.
    """
    made = {suite: list(read_records(results, suite)) for suite in SUITES}
    texts = {suite: SUITES[suite](records, results) for suite, records in made.items() if records}
    if kernels := kernel_tables(results):
        texts["kernels"] = kernels
    for name, text in texts.items():
        write_whole(results / "tables" / f"{name}.md", text)
    return [results / "tables" / f"{name}.md" for name in texts]


if __name__ == "__main__":
    for table in write_tables(Path(sys.argv[1] if len(sys.argv) > 1 else "results")):
        print(table)
