"""Text that a command prints at its end: the short tables of the cells that it measured."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank
from suites.suite import part, suite_names
from suites.tables.end_table import EndTable, RunScope, rendered
from suites.tables.write_tables import message, rejected_cells, terminal_tables, usable_records


@dataclass(frozen=True)
class Style:
    """How end tables are printed.

    Attributes:
        baseline: the rows that others are compared with, as BACKEND/PRECISION.
        whole: show all rows of the command, also the slow ones.
        coloured: add escape sequences for colours.
        rank: the time that ranks rows.
    """

    baseline: str
    whole: bool = True
    coloured: bool = False
    rank: Rank = Rank.gpu


def end_text(suite: str, own: Sequence[Record], folder: MachineFolder, style: Style) -> str:
    """Return the end tables of a suite and machine, with lines of at most 80 columns. A path may be longer.

    A record that no table can be made from is skipped and named in `folder.bad`.

    Args:
        own: records of the cells that the command measured or reused.
    """
    place = str(getattr(part(suite, "tables"), "END_TABLES", "")) if suite in suite_names() else ""
    if not place:
        return terminal_tables(suite, own, folder, style.rank)
    module, _, name = place.partition(":")
    make: Callable[[RunScope], list[EndTable]] = getattr(importlib.import_module(module), name)
    ids = frozenset(record.cell.id for record in own)
    rejected = rejected_cells(folder) - ids if suite in ("accuracy", "latency") else set()
    records = [record for record in _merged(folder.records(suite), own) if record.cell.id not in rejected]
    try:
        tables = make(RunScope(folder, records, ids, style.baseline, style.whole, style.rank))
    except Exception:
        try:
            usable = usable_records(suite, records, folder)
            tables = make(RunScope(folder, usable, ids, style.baseline, style.whole, style.rank))
        except Exception as error:
            folder.bad[folder.tables / f"{suite}.md"] = f"the end table was not made: {message(error)}"
            return ""
    return "\n\n".join(rendered(table, style.coloured) for table in tables)


def details_text(folder: Path, flag: str = "") -> str:
    """Return the remark that names the folder of the files with all columns. `flag` is a flag that prints them."""
    return f"Every column and the full reasons: {f'add {flag}, or ' if flag else ''}read the files in\n  {folder}"


def _merged(stored: Iterable[Record], own: Iterable[Record]) -> list[Record]:
    """Return the stored records, with those of this command in the place of stored ones of the same cell."""
    return [*{record.cell.id: record for record in (*stored, *own)}.values()]
