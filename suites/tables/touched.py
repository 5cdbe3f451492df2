"""Tables that are written once, after many runs.

Each run notes its machine and suite in a file. The command that started the runs writes the tables at its end. Writing
tables takes CPU time, which would disturb the next measurement.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

TOUCHED = "SUITES_TOUCHED"
"""Environment variable with the path of the file for these notes. If it is set, runs write no tables."""


def waits() -> bool:
    """Return whether another command writes the tables of this run."""
    return bool(os.environ.get(TOUCHED))


def touched(results: Path, machine: str, suite: str) -> None:
    """Note that a record of this machine and suite was written, if another command writes the tables."""
    if waits():
        with open(os.environ[TOUCHED], "a", encoding="utf-8") as stream:
            stream.write(json.dumps([str(results), machine, suite]) + "\n")


def tables_at_end(work: Callable[[], int]) -> int:
    """Run `work` without writing tables, then write them once, also after an interrupt.

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
    suites: dict[tuple[str, str], set[str]] = {}
    for results, machine, suite in map(json.loads, lines):
        suites.setdefault((results, machine), set()).add(suite)
    folders = []
    for (results, machine), names in suites.items():
        folders.append(folder := MachineFolder(Path(results), machine))
        try:
            write_machine(folder, names)
        except OSError as error:
            folder.bad[folder.tables] = f"the tables were not written: {error}"
    return print_bad_records(folders)
