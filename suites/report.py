"""Bring results/tables up to date with results/records: `python -m suites.report [RESULTS]`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from suites.accuracy_table import accuracy_tables
from suites.kernel_table import kernel_tables
from suites.layers_table import layers_tables
from suites.record import Record, read_records, write_whole
from suites.search_table import search_tables
from suites.table import latency_tables

SUITES = ("latency", "accuracy", "search", "layers")


def tables_of(suite: str, records: Sequence[Record], results: Path) -> str:
    """The tables of some records of one suite; what `results` holds of accuracy says which latencies count."""
    if suite == "accuracy":
        return accuracy_tables(records)
    if suite == "layers":
        return layers_tables(records)
    if suite == "search":
        return search_tables(records, results)
    return latency_tables(records, read_records(results, "accuracy"))


def write_tables(results: Path) -> list[Path]:
    """Write one table a suite that has records, and one of kernels if any were profiled; returns the files.

    Raises:
        ValueError: a file among the records is none.
    """
    made = {suite: list(read_records(results, suite)) for suite in SUITES}
    texts = {suite: tables_of(suite, records, results) for suite, records in made.items() if records}
    if kernels := kernel_tables(results):
        texts["kernels"] = kernels
    for name, text in texts.items():
        write_whole(results / "tables" / f"{name}.md", text)
    return [results / "tables" / f"{name}.md" for name in texts]


if __name__ == "__main__":
    for table in write_tables(Path(sys.argv[1] if len(sys.argv) > 1 else "results")):
        print(table)
