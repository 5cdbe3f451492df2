"""Description of a table: the function that makes it and the records that it reads."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from suites.records.record import Record
from suites.records.results_folder import MachineFolder

RECORDS, FOLDER = "records", "folder"


@dataclass(frozen=True)
class Table:
    """A function that makes a table from the records of one machine.

    Attributes:
        function: "module:name" of the function. It returns an empty text if the records contribute nothing.
        arguments: arguments of the function in order: "records" for the records of the suite, "folder" for the folder
            of the machine, or the name of another suite for its records.
        more_suites: other suites whose records the function reads from the folder.
        separate: whether the table is only written to its file: a single record cannot give it, and a terminal does
            not show it.
    """

    function: str
    arguments: tuple[str, ...] = (RECORDS,)
    more_suites: tuple[str, ...] = ()
    separate: bool = False

    @property
    def other_suites(self) -> tuple[str, ...]:
        """Suites whose records the table reads besides those of its own suite."""
        return (*(name for name in self.arguments if name not in (RECORDS, FOLDER)), *self.more_suites)

    def text(self, records: Sequence[Record], folder: MachineFolder) -> str:
        """Return the table in markdown; empty if the records contribute nothing to it."""
        module, _, name = self.function.partition(":")
        values = {RECORDS: records, FOLDER: folder}
        arguments = [values[item] if item in values else folder.records(item) for item in self.arguments]
        return str(getattr(importlib.import_module(module), name)(*arguments))
