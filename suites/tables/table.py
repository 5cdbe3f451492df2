"""Description of a table: the function that makes it and the records that it reads."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from suites.records.record import Record
from suites.records.results_folder import MachineFolder
from suites.schema.enums import Rank

RECORDS, FOLDER, RANK = "records", "folder", "rank"

NO_MODEL = "no-model"
"""Folder of the tables of backends without a model."""


def model_folder(record: Record) -> str:
    """Return the name of the folder of a model's tables: the model's name as a valid file name."""
    if record.cell.model == "none":
        return NO_MODEL
    return re.sub(r"[^A-Za-z0-9._-]+", "-", record.cell.model).strip(".-")[:80] or NO_MODEL


@dataclass(frozen=True)
class Table:
    """A function that makes a table from the records of one machine.

    Attributes:
        function: "module:name" of the function. It returns an empty text if the records contribute nothing.
        arguments: arguments of the function in order: "records" for the records of the suite, "folder" for the folder
            of the machine, "rank" for the time that ranks rows, or the name of another suite for its records.
        more_suites: other suites whose records the function reads from the folder.
        separate: whether the table has all models of the machine and is only written to its file: a single record
            cannot give it, and a terminal does not show it. All other tables have one model each.
        suffix: ".md", or ".csv" for a table with one row for each value, which only its file has.
    """

    function: str
    arguments: tuple[str, ...] = (RECORDS,)
    more_suites: tuple[str, ...] = ()
    separate: bool = False
    suffix: str = ".md"

    def files(self, name: str, records: Sequence[Record]) -> dict[str, list[Record]]:
        """Return the records of each file of the table, by the path of the file in the folder of tables."""
        if self.separate:
            return {f"{name}{self.suffix}": list(records)}
        by_file: dict[str, list[Record]] = {}
        for record in sorted(records, key=lambda record: record.cell.model):
            by_file.setdefault(f"{model_folder(record)}/{name}{self.suffix}", []).append(record)
        return by_file

    @property
    def other_suites(self) -> tuple[str, ...]:
        """Suites whose records the table reads besides those of its own suite."""
        return (*(name for name in self.arguments if name not in (RECORDS, FOLDER, RANK)), *self.more_suites)

    def text(self, records: Sequence[Record], folder: MachineFolder, rank: Rank = Rank.gpu) -> str:
        """Return the table in markdown; empty if the records contribute nothing to it."""
        module, _, name = self.function.partition(":")
        values: dict[str, object] = {RECORDS: records, FOLDER: folder, RANK: rank}
        arguments = [values[item] if item in values else folder.records(item) for item in self.arguments]
        return str(getattr(importlib.import_module(module), name)(*arguments))
