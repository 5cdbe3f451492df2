"""Tables of a results folder: the functions that make them, by suite, and the files that they are written to.

Tables are pure functions of records. Modules with tables belong to the folders of suites, which import this folder.
Therefore this module imports them by name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.atomic_file import write_atomically
from suites.records.record import Record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.tables.markdown import without_legend
from suites.text import one_line


@dataclass(frozen=True)
class Table:
    """A function that makes a table from the records of one machine.

    Attributes:
        function: "module:name" of the function. It returns an empty text if the records contribute nothing.
        arguments: arguments of the function in order: "records" for the records of the suite, "folder" for the folder
            of the machine, or the name of another suite for its records.
    """

    function: str
    arguments: tuple[str, ...] = ("records",)

    def text(self, records: Sequence[Record], folder: MachineFolder) -> str:
        """Return the table in markdown; empty if the records contribute nothing to it."""
        module, _, name = self.function.partition(":")
        values = {"records": records, "folder": folder}
        arguments = [values[item] if item in values else folder.records(item) for item in self.arguments]
        return str(getattr(importlib.import_module(module), name)(*arguments))


TABLES: Mapping[str, Mapping[str, Table]] = {
    "latency": {
        "latency": Table("suites.latency.tables:latency_tables", ("records", "accuracy")),
        "workloads": Table("suites.latency.workload_tables:workload_tables", ("records", "accuracy")),
        "kernels": Table("suites.layers.kernel_tables:kernel_tables", ("folder",)),
    },
    "accuracy": {
        "accuracy": Table("suites.accuracy.tables:accuracy_tables"),
        "recipes": Table("suites.accuracy.recipe_tables:recipe_tables", ("records", "latency")),
    },
    "layers": {"layers": Table("suites.layers.tables:layers_tables")},
    "search": {"search": Table("suites.tables.search_tables:search_tables", ("records", "folder"))},
    "switching": {
        "switching": Table("suites.switching.tables:switching_tables", ("records", "accuracy")),
        "switching_pairs": Table("suites.switching.pair_tables:pair_tables"),
    },
}
"""Tables by suite and name of the table. The name is also the name of the file."""

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
            texts[name] = table.text(records, folder)
        except Exception:
            try:
                texts[name] = table.text(usable_records(suite, records, folder), folder)
            except Exception as error:
                folder.bad[path] = f"the table was not made: {message(error)}"
    return {name: text for name, text in texts.items() if text}


def usable_records(suite: str, records: Sequence[Record], folder: MachineFolder) -> list[Record]:
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
                table.text([record], MachineFolder(folder.results / os.devnull, folder.name))
    except Exception as error:
        return f"no table can be made from it: {message(error)}"
    return ""


def message(error: Exception) -> str:
    """Return the type and the text of an error in one line."""
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
    """Return a line for each skipped file, at most MAX_BAD_LINES lines and the number of the others."""
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
