"""Tables of a results folder: which tables there are, and the files that they are written to.

Tables are pure functions of records. The tables of a suite are described in its own tables.py, as TABLES.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from backends.atomic_file import write_atomically
from suites.records.record import Record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.records.search_result import SearchResult
from suites.schema.enums import Rank
from suites.suite import has_part, part, suite_names
from suites.tables.markdown import without_legend
from suites.tables.table import Table
from suites.text import one_line

SEARCH = "search"
"""Suite of the records of searches. It has no folder of its own, because a search runs cells of other suites."""

SEARCH_TABLES = {
    "search": Table(
        "suites.tables.search_tables:search_tables", ("records", "folder"), more_suites=("accuracy", "latency")
    )
}


@cache
def tables_by_suite() -> Mapping[str, Mapping[str, Table]]:
    """Return the tables by suite and name of the table. The name is also the name of the file, without its suffix."""
    own = {name: part(name, "tables").TABLES for name in suite_names() if has_part(name, "tables")}
    return {**own, SEARCH: SEARCH_TABLES}


COMPLETING = ("accuracy", "ceilings")
"""Suites whose records add to the rows of other suites: task scores and marks, and shares of ceilings."""


def completed_by(requested: Collection[str]) -> set[str]:
    """Return the suites whose tables change after runs of these suites, because their rows use records of them."""
    used = set(requested) & set(COMPLETING)
    return {suite for suite, tables in tables_by_suite().items() for table in tables.values()
            if used & set(table.arguments)}  # fmt: skip


MAX_BAD_LINES = 20
"""Largest number of lines about bad records; the others are only counted."""


def tables_of(suite: str, records: Sequence[Record], folder: MachineFolder, rank: Rank = Rank.gpu) -> dict[str, str]:
    """Return the tables of records of one suite and machine, by path in the folder of tables, without empty tables.

    A record that a table cannot be made from is skipped. A table that still fails is skipped and named in `folder.bad`.
    """
    texts: dict[str, str] = {}
    for name, table in tables_by_suite().get(suite, {}).items():
        for file, members in table.files(name, records).items():
            try:
                texts[file] = table.text(members, folder, rank)
            except Exception:
                try:
                    texts[file] = table.text(usable_records(suite, members, folder), folder, rank)
                except Exception as error:
                    folder.bad[folder.tables / file] = f"the table was not made: {message(error)}"
    return {file: text for file, text in texts.items() if text}


def usable_records(suite: str, records: Sequence[Record], folder: MachineFolder) -> list[Record]:
    """Return the records that each give tables alone; remove other records of the folder from its lists."""
    others = {other for table in tables_by_suite()[suite].values() for other in table.other_suites}
    for used in (suite, *sorted(others)):
        for record in folder.records(used):
            if reason := _fault(used, record, folder):
                folder.leave_out(record, reason)
    return [record for record in records if not _fault(suite, record, folder)]


def _fault(suite: str, record: Record, folder: MachineFolder) -> str:
    """Return why a record alone gives no table; empty if it gives one."""
    try:
        for table in tables_by_suite()[suite].values():
            if not table.separate:
                table.text([record], MachineFolder(folder.results / os.devnull, folder.name))
    except Exception as error:
        return f"no table can be made from it: {message(error)}"
    return ""


def message(error: Exception) -> str:
    """Return the type and the text of an error in one line."""
    return one_line(f"{type(error).__name__}: {error}", 200)


def terminal_tables(suite: str, records: Sequence[Record], folder: MachineFolder, rank: Rank = Rank.gpu) -> str:
    """Return the tables of records for a terminal, without the legends."""
    own = tables_by_suite().get(suite, {})
    shown = {name for name, table in own.items() if not table.separate and table.suffix == ".md"}
    texts = {file: text for file, text in tables_of(suite, records, folder, rank).items() if Path(file).stem in shown}
    rows = [f"## {section}" for text in texts.values() for section in without_legend(text).split("\n## ")[1:]]
    files = ", ".join(str(folder.tables / file) for file in texts)
    return "\n".join([*rows, f"The columns are explained in {files}"]) if texts else ""


def rejected_cells(folder: MachineFolder) -> set[str]:
    """Return the ids of cells that searches tried and did not choose. Only the tables of searches show them."""
    return {
        cell
        for record in folder.records("search")
        if isinstance(result := record.result, SearchResult)
        for step in result.steps
        if step.kept not in ((), result.kept)
        for cell in (step.accuracy, step.latency)
    }


def write_machine(folder: MachineFolder, suites: Collection[str] | None = None, rank: Rank = Rank.gpu) -> list[Path]:
    """Write the tables of suites of one machine (None: all), and the tables that change with them; return the files."""
    written = []
    all_suites = tables_by_suite()
    requested = all_suites if suites is None else suites
    changed = {*requested, *completed_by(requested)}
    passed = rejected_cells(folder) if {"accuracy", "latency"} & changed else set()
    for suite in (suite for suite in all_suites if suite in changed):
        if not (records := [record for record in folder.records(suite) if record.cell.id not in passed]):
            continue
        for file, text in tables_of(suite, records, folder, rank).items():
            (folder.tables / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(folder.tables / file, text)
            written.append(folder.tables / file)
        for name, table in all_suites[suite].items():
            if not table.separate:
                # Earlier versions wrote one file for all models.
                (folder.tables / f"{name}.md").unlink(missing_ok=True)
    return written


def write_tables(results: Path, rank: Rank = Rank.gpu) -> tuple[list[Path], list[MachineFolder]]:
    """Write the tables of all machines and suites that have records; return the files and the machines."""
    folders = machine_folders(results)
    return [path for folder in folders for path in write_machine(folder, rank=rank)], folders


def bad_records(folders: Iterable[MachineFolder]) -> list[str]:
    """Return a line for each skipped file, at most MAX_BAD_LINES lines and the number of the others."""
    bad = {path: reason for folder in folders for path, reason in folder.bad.items()}
    lines = [one_line(f"skipped: {path}: {reason}") for path, reason in bad.items()]
    more = len(lines) - MAX_BAD_LINES
    return [*lines[:MAX_BAD_LINES], *([f"skipped: {more} more"] if more > 0 else [])]


def print_unknown_fields(folders: Iterable[MachineFolder]) -> None:
    """Print a line on standard error for each unknown field of a record, at most MAX_BAD_LINES lines."""
    found = [(path, name) for folder in folders for path, names in folder.unknown_fields().items() for name in names]
    for path, name in found[:MAX_BAD_LINES]:
        print(one_line(f'note: {path}: unknown field "{name}" kept'), file=sys.stderr)
    if (more := len(found) - MAX_BAD_LINES) > 0:
        print(f"note: {more} more unknown fields kept", file=sys.stderr)


def print_bad_records(folders: Iterable[MachineFolder]) -> int:
    """Print the lines of `bad_records` on standard error; return their number."""
    lines = bad_records(folders)
    for line in lines:
        print(line, file=sys.stderr)
    return len(lines)
