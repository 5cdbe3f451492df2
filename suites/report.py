"""Bring results/tables up to date with results/records: `python -m suites.report [RESULTS]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from suites.checks import Refused
from suites.command_line import guarded
from suites.record import Record, read_records, write_whole
from suites.tables.accuracy import accuracy_tables
from suites.tables.kernels import kernel_tables
from suites.tables.latency import latency_tables
from suites.tables.layers import layers_tables
from suites.tables.recipes import recipe_tables
from suites.tables.search import search_tables
from suites.tables.switching import switching_tables
from suites.tables.switching_pairs import pair_tables
from suites.tables.workloads import workload_tables

Table = Callable[[Sequence[Record], Path], str]

TABLES: Mapping[str, Mapping[str, Table]] = {
    "latency": {
        "latency": lambda records, results: latency_tables(records, read_records(results, "accuracy")),
        "workloads": lambda records, results: workload_tables(records, read_records(results, "accuracy")),
    },
    "accuracy": {
        "accuracy": lambda records, results: accuracy_tables(records),
        "recipes": lambda records, results: recipe_tables(records, read_records(results, "latency")),
    },
    "layers": {"layers": lambda records, results: layers_tables(records)},
    "search": {"search": search_tables},
    "switching": {
        "switching": lambda records, results: switching_tables(records, read_records(results, "accuracy")),
        "switching_pairs": lambda records, results: pair_tables(records),
    },
}
"""By suite, what makes each of its tables of some of its records, empty where they have nothing for it; the folder of
results holds what else they need, such as the accuracy that says which latencies count."""


def tables_of(suite: str, records: Sequence[Record], results: Path) -> dict[str, str]:
    """The tables of one suite's records by name, those that are not empty."""
    made = {name: table(records, results) for name, table in TABLES[suite].items()}
    return {name: text for name, text in made.items() if text}


def shown(suite: str, records: Sequence[Record], results: Path) -> str:
    """The same for a terminal: without the legends, which the files have."""
    texts = tables_of(suite, records, results)
    rows = [f"## {section}" for text in texts.values() for section in text.split("\n## ")[1:]]
    files = ", ".join(str(results / "tables" / f"{name}.md") for name in texts)
    return "\n".join([*rows, f"What the columns say: {files}"]) if texts else ""


def passed_by(results: Path) -> set[tuple[str, str]]:
    """Machine and cell of what searches tried on the way to their answer: it stands in their own table alone."""
    return {
        (record.environment["machine"], step[suite])
        for record in read_records(results, "search")
        for step in record.scores["steps"]
        if step["held"] not in ([], record.scores["held"])
        for suite in ("accuracy", "latency")
    }


def write_tables(results: Path) -> list[Path]:
    """Write the tables of all suites that have records, and one of kernels if any were profiled; returns the files.

    Raises:
        ValueError: a file among the records is none.
    """
    texts: dict[str, str] = {}
    passed = passed_by(results)
    for suite in TABLES:
        records = [r for r in read_records(results, suite) if (r.environment["machine"], r.cell.id) not in passed]
        if records:
            texts |= tables_of(suite, records, results)
    if kernels := kernel_tables(results):
        texts["kernels"] = kernels
    for name, text in texts.items():
        write_whole(results / "tables" / f"{name}.md", text)
    return [results / "tables" / f"{name}.md" for name in texts]


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print where they are; returns 0, or 2 if there is nothing to make them of."""
    parser = argparse.ArgumentParser(prog="python -m suites.report", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"), help="a folder with records/")
    results = parser.parse_args(arguments).results

    def write() -> int:
        if not (results / "records").is_dir():
            raise Refused(f"{results} has no folder records; give one that runs wrote to")
        try:
            print("\n".join(map(str, write_tables(results))))
        except ValueError as error:
            raise Refused(str(error)) from None
        return 0

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
