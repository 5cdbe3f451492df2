"""Tables that are written once, after many runs.

Each run notes its machine and cell in a file. The command that started the runs writes the tables at its end, and
prints the short tables of the cells. Writing tables takes CPU time, which would disturb the next measurement.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from suites.records.cell import Cell
from suites.schema.enums import Rank

if TYPE_CHECKING:
    from suites.records.results_folder import MachineFolder

TOUCHED = "SUITES_TOUCHED"
"""Environment variable with the path of the file for these notes. If it is set, runs write no tables."""


MOST_SHOWN = 12
"""Largest number of cells of a suite whose rows are all shown at the end."""


def waits() -> bool:
    """Return whether another command writes the tables of this run."""
    return bool(os.environ.get(TOUCHED))


def touched(results: Path, machine: str, cell: Cell, baseline: str, rank: Rank = Rank.gpu) -> None:
    """Note that the record of this machine and cell was written, if another command writes the tables."""
    if waits():
        with open(os.environ[TOUCHED], "a", encoding="utf-8") as stream:
            stream.write(json.dumps([str(results), machine, cell.suite, cell.id, baseline, rank.name]) + "\n")


def tables_at_end(work: Callable[[], int]) -> int:
    """Run `work` without writing tables, then write and print them once, also after an interrupt.

    Returns:
        The exit status of `work`, or 1 if it is 0 and a table could not be written or a record is not valid.
    """
    with tempfile.TemporaryDirectory(prefix="suites-") as folder:
        file = Path(folder, "touched")
        os.environ[TOUCHED] = str(file)
        bad = 0
        try:
            status = work()
        finally:
            del os.environ[TOUCHED]
            bad = _write(file)
    return status or int(bad > 0)


def _write(file: Path) -> int:
    from suites.records.results_folder import MachineFolder
    from suites.tables.write_tables import print_bad_records, write_machine

    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    cells: dict[tuple[str, str], dict[str, dict[str, tuple[str, str]]]] = {}
    for results, machine, suite, cell, baseline, rank in map(json.loads, lines):
        cells.setdefault((results, machine), {}).setdefault(suite, {})[cell] = baseline, rank
    folders = []
    for (results, machine), by_suite in cells.items():
        folders.append(folder := MachineFolder(Path(results), machine))
        try:
            _print(folder, by_suite)
            write_machine(folder, by_suite)
        except OSError as error:
            folder.bad[folder.tables] = f"the tables were not written: {error}"
    return print_bad_records(folders)


def _print(folder: MachineFolder, by_suite: Mapping[str, Mapping[str, tuple[str, str]]]) -> None:
    """Print the end tables of a machine. With many cells they have the fastest rows only."""
    from suites.tables.terminal import Style, details_text, end_text

    for suite, cells in by_suite.items():
        found = (folder.record(suite, cell) for cell in cells)
        own = [record for record in found if record is not None]
        if own:
            baseline, rank = [*cells.values()][-1]
            style = Style(baseline, whole=len(cells) <= MOST_SHOWN, rank=Rank[rank])
            print(f"{end_text(suite, own, folder, style)}\n")
    print(details_text(folder.tables))
