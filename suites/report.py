"""Write the tables of a results folder from its records: `python -m suites.report [RESULTS]`.

Every machine has its tables in RESULTS/MACHINE/tables; the default folder is results/runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from suites.checks import Refused
from suites.command_line import guarded
from suites.record import Record, write_whole
from suites.results_folder import MachineFolder, machine_folders
from suites.tables.accuracy import accuracy_tables
from suites.tables.kernels import kernel_tables
from suites.tables.latency import latency_tables
from suites.tables.layers import layers_tables
from suites.tables.recipes import recipe_tables
from suites.tables.search import search_tables
from suites.tables.switching import switching_tables
from suites.tables.switching_pairs import pair_tables
from suites.tables.workloads import workload_tables

Table = Callable[[Sequence[Record], MachineFolder], str]

TABLES: Mapping[str, Mapping[str, Table]] = {
    "latency": {
        "latency": lambda records, folder: latency_tables(records, folder.records("accuracy")),
        "workloads": lambda records, folder: workload_tables(records, folder.records("accuracy")),
        "kernels": lambda records, folder: kernel_tables(folder),
    },
    "accuracy": {
        "accuracy": lambda records, folder: accuracy_tables(records),
        "recipes": lambda records, folder: recipe_tables(records, folder.records("latency")),
    },
    "layers": {"layers": lambda records, folder: layers_tables(records)},
    "search": {"search": search_tables},
    "switching": {
        "switching": lambda records, folder: switching_tables(records, folder.records("accuracy")),
        "switching_pairs": lambda records, folder: pair_tables(records),
    },
}
"""By suite and name, what makes a table of records of one machine; empty where they have nothing for it. The folder
gives the records of other suites that the table needs."""

JUDGED_BY_ACCURACY = ("latency", "switching")
"""Suites whose tables mark rows as invalid by records of the accuracy suite: they change when it has run."""

SHOWN_BAD = 20
"""Lines about bad records before the rest are counted."""


def shown(suite: str, records: Sequence[Record], folder: MachineFolder) -> str:
    """The tables of some records for a terminal, without the legends."""
    made = {name: table(records, folder) for name, table in TABLES[suite].items() if name != "kernels"}
    texts = {name: text for name, text in made.items() if text}
    rows = [f"## {section}" for text in texts.values() for section in text.split("\n## ")[1:]]
    files = ", ".join(str(folder.tables / f"{name}.md") for name in texts)
    return "\n".join([*rows, f"The columns are explained in {files}"]) if texts else ""


def passed_by(folder: MachineFolder) -> set[str]:
    """Cells that searches tried and did not choose. Only the tables of searches show them."""
    return {
        step[suite]
        for record in folder.records("search")
        for step in record.scores["steps"]
        if step["held"] not in ([], record.scores["held"])
        for suite in ("accuracy", "latency")
    }


def write_machine(folder: MachineFolder, suites: Collection[str] = tuple(TABLES)) -> list[Path]:
    """Write the tables of some suites of one machine, and those that they judge; returns the files."""
    written = []
    touched = {*suites, *(JUDGED_BY_ACCURACY if "accuracy" in suites else ())}
    passed = passed_by(folder) if {"accuracy", "latency"} & touched else set()
    for suite in (suite for suite in TABLES if suite in touched):
        if not (records := [record for record in folder.records(suite) if record.cell.id not in passed]):
            continue
        for name, table in TABLES[suite].items():
            if text := table(records, folder):
                write_whole(folder.tables / f"{name}.md", text)
                written.append(folder.tables / f"{name}.md")
    return written


def write_tables(results: Path) -> tuple[list[Path], list[MachineFolder]]:
    """Write the tables of all machines and suites that have records; returns the files and the machines."""
    folders = machine_folders(results)
    return [path for folder in folders for path in write_machine(folder)], folders


def bad_records(folders: Iterable[MachineFolder]) -> list[str]:
    """A line for each file that was left out, or for the first of many."""
    lines = [f"left out: {path}: {reason}" for folder in folders for path, reason in folder.bad.items()]
    more = len(lines) - SHOWN_BAD
    return [*lines[:SHOWN_BAD], *([f"left out: {more} more files that are no records"] if more > 0 else [])]


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print where they are; returns 0, 1 if a file is no record, 2 if there are no records."""
    parser = argparse.ArgumentParser(prog="python -m suites.report", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("results", nargs="?", type=Path, default=Path("results/runs"), help="a folder of results")
    results = parser.parse_args(arguments).results

    def write() -> int:
        if not machine_folders(results):
            raise Refused(f"{results} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")
        written, folders = write_tables(results)
        print("\n".join(map(str, written)))
        bad = bad_records(folders)
        for line in bad:
            print(line, file=sys.stderr)
        return int(bool(bad))

    return guarded(write)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
