"""Bring results/tables up to date with results/records: `python -m suites.report [RESULTS]`."""

from __future__ import annotations

import sys
from pathlib import Path

from suites.accuracy_table import accuracy_tables
from suites.kernel_table import kernel_tables
from suites.record import read_records, write_whole
from suites.table import latency_tables

SUITES = {"latency": latency_tables, "accuracy": accuracy_tables}


def write_tables(results: Path) -> list[Path]:
    """Write one table a suite that has records, and one of kernels if any were profiled; returns the files.

    Raises:
        ValueError: a file among the records is none.
    """
    written = []
    for suite, tables in SUITES.items():
        records = list(read_records(results, suite))
        if records:
            path = results / "tables" / f"{suite}.md"
            write_whole(path, tables(records))
            written.append(path)
    if kernels := kernel_tables(results):
        written.append(results / "tables" / "kernels.md")
        write_whole(written[-1], kernels)
    return written


if __name__ == "__main__":
    for table in write_tables(Path(sys.argv[1] if len(sys.argv) > 1 else "results")):
        print(table)
