"""Write the tables of a results folder from its records: `python -m suites.report [RESULTS]`.

The tables of each machine are written to RESULTS/MACHINE/tables. The default of RESULTS is results/runs.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from suites.accuracy.recipe_tables import recipe_tables
from suites.accuracy.tables import accuracy_tables
from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, program, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.latency.tables import latency_tables
from suites.latency.workload_tables import workload_tables
from suites.layers.kernel_tables import kernel_tables
from suites.layers.tables import layers_tables
from suites.records.record import Record, write_atomically
from suites.records.results_folder import MachineFolder, machine_folders
from suites.schema.refusals import Refused
from suites.switching.pair_tables import pair_tables
from suites.switching.tables import switching_tables
from suites.tables.markdown import without_legend
from suites.tables.search_tables import search_tables
from suites.text import one_line

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
"""Functions that make the tables, by suite and name of the table.

They get the records of one machine and its folder, which has the records of other suites. They return an empty text if
the records contribute nothing to the table.
"""

MARKED_BY_ACCURACY = ("latency", "switching")
"""Suites whose tables use records of the accuracy suite to mark rows as invalid. They change after an accuracy run."""

MAX_BAD_LINES = 20
"""Largest number of lines about bad records; the others are only counted."""


OTHER_SUITES_READ: Mapping[str, Sequence[str]] = {
    "latency": ("accuracy",),
    "accuracy": ("latency",),
    "switching": ("accuracy",),
    "search": ("accuracy", "latency"),
}
"""For each suite, the other suites whose records its tables read."""


def tables_of(suite: str, records: Sequence[Record], folder: MachineFolder) -> dict[str, str]:
    """Return the tables of records of one suite and machine, by name, without empty tables.

    A record that a table cannot be made from is skipped. A table that still fails is skipped and named in `folder.bad`.
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
                folder.bad[path] = f"the table was not made: {_message(error)}"
    return {name: text for name, text in texts.items() if text}


def _usable(suite: str, records: Sequence[Record], folder: MachineFolder) -> list[Record]:
    """Return the records that each give tables alone; remove other records of the folder from its lists."""
    for used in (suite, *OTHER_SUITES_READ.get(suite, ())):
        for record in folder.records(used):
            if reason := _fault(used, record, folder):
                folder.leave_out(record, reason)
    return [record for record in records if not _fault(suite, record, folder)]


def _fault(suite: str, record: Record, folder: MachineFolder) -> str:
    """Return why a record alone gives no table; empty if it gives one."""
    try:
        for name, table in TABLES[suite].items():
            if name != "kernels":
                table([record], MachineFolder(folder.results / os.devnull, folder.name))
    except Exception as error:
        return f"no table can be made from it: {_message(error)}"
    return ""


def _message(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)


def terminal_tables(suite: str, records: Sequence[Record], folder: MachineFolder) -> str:
    """Return the tables of records for a terminal, without the legends."""
    texts = {name: text for name, text in tables_of(suite, records, folder).items() if name != "kernels"}
    rows = [f"## {section}" for text in texts.values() for section in without_legend(text).split("\n## ")[1:]]
    files = ", ".join(str(folder.tables / f"{name}.md") for name in texts)
    return "\n".join([*rows, f"The columns are explained in {files}"]) if texts else ""


def rejected_cells(folder: MachineFolder) -> set[str]:
    """Return the ids of cells that searches tried and did not choose. Only the tables of searches show them."""
    return {
        step[suite]
        for record in folder.records("search")
        for step in record.scores["steps"]
        if step["held"] not in ([], record.scores["held"])
        for suite in ("accuracy", "latency")
    }


def write_machine(folder: MachineFolder, suites: Collection[str] = tuple(TABLES)) -> list[Path]:
    """Write the tables of suites of one machine, and the tables that change with them; return the files."""
    written = []
    changed = {*suites, *(MARKED_BY_ACCURACY if "accuracy" in suites else ())}
    passed = rejected_cells(folder) if {"accuracy", "latency"} & changed else set()
    for suite in (suite for suite in TABLES if suite in changed):
        if not (records := [record for record in folder.records(suite) if record.cell.id not in passed]):
            continue
        for name, text in tables_of(suite, records, folder).items():
            write_atomically(folder.tables / f"{name}.md", text)
            written.append(folder.tables / f"{name}.md")
    return written


def write_tables(results: Path) -> tuple[list[Path], list[MachineFolder]]:
    """Write the tables of all machines and suites that have records; return the files and the machines."""
    folders = machine_folders(results)
    return [path for folder in folders for path in write_machine(folder)], folders


def bad_records(folders: Iterable[MachineFolder]) -> list[str]:
    """Return a line for each skipped file, at most SHOWN_BAD lines and the number of the others."""
    bad = {path: reason for folder in folders for path, reason in folder.bad.items()}
    lines = [one_line(f"skipped: {path}: {reason}") for path, reason in bad.items()]
    more = len(lines) - MAX_BAD_LINES
    return [*lines[:MAX_BAD_LINES], *([f"skipped: {more} more"] if more > 0 else [])]


def print_bad_records(folders: Iterable[MachineFolder]) -> int:
    """Print the lines of `bad_records` on standard error; return their number."""
    lines = bad_records(folders)
    for line in lines:
        print(line, file=sys.stderr)
    return len(lines)


def main(arguments: Sequence[str]) -> int:
    """Write the tables and print their paths. Return 0, 1 if a file is not a record, or 2 if there are no records."""

    def write() -> int:
        given = _parser().parse_args(arguments).results
        results = Path(given or default_folder("results"))
        if given and "=" in given and not results.exists():
            raise Refused(f"{given} is not a folder; write {program('report')} {given.partition('=')[2]}")
        if not machine_folders(results):
            raise Refused(f"{results} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")
        written, folders = write_tables(results)
        print("\n".join(map(str, written)))
        return int(print_bad_records(folders) > 0)

    return run_guarded(write)


def _parser() -> CommandParser:
    parser = CommandParser(
        "report",
        "Write the tables of a results folder from its records, and print the paths of the tables.\n\n"
        "The tables of each machine are written to RESULTS/MACHINE/tables.\n"
        "Exit status: 0 all records were read, 1 a file was left out, 2 the folder has no records.",
        ("", "results/reference"),
    )
    parser.add_argument("results", nargs="?", metavar="RESULTS", help="folder of results; default results/runs")
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
