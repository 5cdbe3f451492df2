"""Write the tables of a results folder from its records: `python -m suites.report [RESULTS]`.

Every machine has its tables in RESULTS/MACHINE/tables; the default folder is results/runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from suites.checks import Refused
from suites.command_line import guarded, program
from suites.output import tolerantly
from suites.record import Record, write_whole
from suites.results_folder import MachineFolder, machine_folders
from suites.tables.accuracy import accuracy_tables
from suites.tables.kernels import kernel_tables
from suites.tables.latency import latency_tables
from suites.tables.layers import layers_tables
from suites.tables.recipes import recipe_tables
from suites.tables.rows import without_legend
from suites.tables.search import search_tables
from suites.tables.switching import switching_tables
from suites.tables.switching_pairs import pair_tables
from suites.tables.workloads import workload_tables
from suites.text import one_line
from suites.user_folders import default_folder

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


USES: Mapping[str, Sequence[str]] = {"latency": ("accuracy",), "accuracy": ("latency",), "switching": ("accuracy",),
                                     "search": ("accuracy", "latency")}  # fmt: skip
"""The suites whose records the tables of a suite read besides its own."""


def tables_of(suite: str, records: Sequence[Record], folder: MachineFolder) -> dict[str, str]:
    """The tables of some records of one suite and machine by name, without empty ones.

    A record that no table can be made of is left out. A table that fails all the same is left out and named in
    `folder.bad`.
    """
    texts: dict[str, str] = {}
    for name, table in TABLES[suite].items():
        path = folder.tables / f"{name}.md"
        try:
            texts[name] = table(records, folder)
        except Exception:
            try:
                texts[name] = table(_usable(suite, records, folder), folder)
            except Exception as error:
                folder.bad[path] = f"the table was not made: {_said(error)}"
    return {name: text for name, text in texts.items() if text}


def _usable(suite: str, records: Sequence[Record], folder: MachineFolder) -> list[Record]:
    """The records that tables can be made of, each by itself; other records of the folder are left out for good."""
    for used in (suite, *USES.get(suite, ())):
        for record in folder.records(used):
            if reason := _fault(used, record, folder):
                folder.leave_out(record, reason)
    return [record for record in records if not _fault(suite, record, folder)]


def _fault(suite: str, record: Record, folder: MachineFolder) -> str:
    """Why no table can be made of a record by itself; empty if one can."""
    try:
        for name, table in TABLES[suite].items():
            if name != "kernels":
                table([record], MachineFolder(folder.results / os.devnull, folder.name))
    except Exception as error:
        return f"no table can be made of it: {_said(error)}"
    return ""


def _said(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)


def shown(suite: str, records: Sequence[Record], folder: MachineFolder) -> str:
    """The tables of some records for a terminal, without the legends."""
    texts = {name: text for name, text in tables_of(suite, records, folder).items() if name != "kernels"}
    rows = [f"## {section}" for text in texts.values() for section in without_legend(text).split("\n## ")[1:]]
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
        for name, text in tables_of(suite, records, folder).items():
            write_whole(folder.tables / f"{name}.md", text)
            written.append(folder.tables / f"{name}.md")
    return written


def write_tables(results: Path) -> tuple[list[Path], list[MachineFolder]]:
    """Write the tables of all machines and suites that have records; returns the files and the machines."""
    folders = machine_folders(results)
    return [path for folder in folders for path in write_machine(folder)], folders


def bad_records(folders: Iterable[MachineFolder]) -> list[str]:
    """A line for each file that was left out, or for the first of many."""
    bad = {path: reason for folder in folders for path, reason in folder.bad.items()}
    lines = [one_line(f"left out: {path}: {reason}") for path, reason in bad.items()]
    more = len(lines) - SHOWN_BAD
    return [*lines[:SHOWN_BAD], *([f"left out: {more} more"] if more > 0 else [])]


def say_bad(folders: Iterable[MachineFolder]) -> int:
    """Print the lines of `bad_records` on standard error; returns their number."""
    lines = bad_records(folders)
    for line in lines:
        print(line, file=sys.stderr)
    return len(lines)


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print where they are; returns 0, 1 if a file is no record, 2 if there are no records."""
    parser = argparse.ArgumentParser(prog=program("report"), description=(__doc__ or "").partition(":")[0])
    parser.add_argument("results", nargs="?", help="a folder of results; by default results/runs")
    given = parser.parse_args(arguments).results

    def write() -> int:
        results = Path(given or default_folder("results"))
        if not machine_folders(results):
            raise Refused(f"{results} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")
        written, folders = write_tables(results)
        print("\n".join(map(str, written)))
        return int(say_bad(folders) > 0)

    return guarded(write)


if __name__ == "__main__":
    sys.exit(tolerantly(lambda: main(sys.argv[1:])))
