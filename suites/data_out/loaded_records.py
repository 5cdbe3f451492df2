"""The Python interface to results: `load_records` gives records, their rows as dataclasses, and a DataFrame."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from suites.asking.user_folders import default_folder
from suites.data_out.data_row import DataRow
from suites.data_out.frames import frame_of
from suites.data_out.latency_data import latency_data
from suites.data_out.record_data import accuracy_data
from suites.records.record import Record
from suites.records.results_folder import MachineFolder, folders_to_read
from suites.schema.enums import Rank
from suites.schema.refusals import Refused, did_you_mean, first_line, no_such_choice, shortened
from suites.statistics.validity import judged
from suites.tables.write_tables import bad_records, rejected_cells

if TYPE_CHECKING:
    import pandas as pd


class Records(Sequence[Record]):
    """Records of a results folder, sorted by machine, suite and cell.

    Attributes:
        folders: machines with records.
    """

    def __init__(self, folders: Sequence[MachineFolder], suites: Sequence[str], rank: Rank = Rank.gpu) -> None:
        self.folders, self._suites, self._rank = tuple(folders), tuple(suites), rank
        self._records = [record for folder in folders for suite in suites for record in folder.records(suite)]

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def skipped(self) -> Sequence[str]:
        """A line for each file that is not a record, with its path and the reason."""
        return bad_records(self.folders)

    def rows(self) -> list[DataRow]:
        """Return one row for each cell, shape and setting of CUDA graphs, and one for each accuracy record.

        Records of other suites have no rows. Rows of one machine compete for the first place with all its latency
        records, whatever the selection.
        """
        return list(self._rows)

    def frame(self) -> pd.DataFrame:
        """Return the rows as a pandas DataFrame, with a column for each field of `DataRow`.

        Raises:
            Refused: pandas is not installed; the message has the command that installs it.
        """
        return frame_of(self._rows)

    @cached_property
    def _rows(self) -> list[DataRow]:
        rows: list[DataRow] = []
        for folder in self.folders:
            if "accuracy" in self._suites:
                rows += _rows_of(folder, "accuracy", accuracy_data)
            if "latency" in self._suites:
                scores, not_chosen = judged(folder.records("accuracy")), rejected_cells(folder)
                ceilings = folder.records("ceilings")
                make = partial(latency_data, scores=scores, not_chosen=not_chosen, rank=self._rank, ceilings=ceilings)
                rows += _rows_of(folder, "latency", make)
        return rows


def _rows_of(folder: MachineFolder, suite: str, make: Callable[[Sequence[Record]], list[DataRow]]) -> list[DataRow]:
    """Return the rows of a suite. A record that gives no rows is left out of the folder, with the reason."""
    try:
        return make(folder.records(suite))
    except Exception:  # A record of another version may lack a figure that every record should have.
        for record in folder.records(suite):
            try:
                make([record])
            except Exception as error:
                folder.leave_out(record, f"no row can be made from it: {first_line(error)}")
        return make(folder.records(suite))


def load_records(
    results: str | os.PathLike[str] | None = None, *, machine: str = "", suite: str | None = None, rank: str = "gpu"
) -> Records:
    """Return the records of a results folder.

    Files that are not records are skipped with a warning.

    Args:
        results: folder that runs wrote to, such as "results/reference". None: the default of the key results.
        machine: any part of the name of the machines. Empty: all machines.
        suite: name of the suite. None: all suites.
        rank: time by which the fastest rows are found: "gpu" or "request".

    Raises:
        Refused: the folder has no records, or none of this machine or suite, or there is no such rank. The message
            names those that exist.
    """
    if rank not in Rank.__members__:
        raise Refused(no_such_choice("rank", rank, Rank.__members__))
    records = selected_records(Path(results or default_folder("results")), machine, suite, Rank[rank])
    for line in records.skipped:
        warnings.warn(line, stacklevel=2)
    return records


def selected_records(results: Path, machine: str = "", suite: str | None = None, rank: Rank = Rank.gpu) -> Records:
    """Return the records as `load_records` does, without warnings."""
    folders = folders_to_read(results)
    if not folders:
        raise Refused(f"{results} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")
    chosen = [folder for folder in folders if machine in folder.name]
    if not chosen:
        raise Refused(_missing("machine", machine, [folder.name for folder in folders]))
    suites = sorted({name for folder in chosen for name in folder.suites()})
    if suite is not None and suite not in suites:
        raise Refused(_missing("suite", suite, suites))
    return Records(chosen, suites if suite is None else [suite], rank)


def _missing(kind: str, given: str, names: Sequence[str]) -> str:
    hint = did_you_mean(given, names)
    return f"there are no records of {kind} {shortened(given)}; {hint}choices: {', '.join(names) or 'none'}"
