"""Records of earlier runs as a source of estimates: this machine first, then the other machines, the nearest first."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from suites.records.record import Record
from suites.records.results_folder import MachineFolder, machine_folders
from suites.root import ROOT
from suites.schema.refusals import Refused

REFERENCE = ROOT / "results" / "reference"
"""Committed records of other machines; an installed copy does not have them."""


@dataclass
class PastRuns:
    """Records in a results folder and among the committed records. Each suite of a machine is read at most once.

    Attributes:
        results: the results folder of the request.
        machine: name of this machine.
        others: whether records of other machines count.
    """

    results: Path
    machine: str
    others: bool = True
    _folders: list[MachineFolder] | None = field(default=None, repr=False)

    def own(self, suite: str) -> list[Record]:
        """Return the records of this machine in the results folder.

        Raises:
            Refused: their folder cannot be read.
        """
        folder = self.results / self.machine / "records" / suite
        if os.path.lexists(folder):
            try:
                os.listdir(folder)
            except OSError as error:
                raise Refused(
                    f"results={self.results}: {folder} cannot be read ({error.strerror}); correct its permissions or "
                    "choose another results="
                ) from None
        return self._sources()[0].records(suite)

    def sources(self, suite: str, backend: str) -> Iterator[tuple[str, list[Record]]]:
        """Yield machines with records of a suite and a backend, each with these records. This machine comes first.

        Every record of this machine in the results folder is read, so that `bad_files` counts them.
        """
        self._sources()[0].records(suite)
        for folder in self._sources():
            if records := folder.records_of_backend(suite, backend):
                yield folder.name, records

    def bad_files(self) -> int:
        """Return the number of files among this machine's records that are not valid records."""
        return len(self._sources()[0].bad)

    def _sources(self) -> list[MachineFolder]:
        if self._folders is None:
            own = [MachineFolder(root, self.machine) for root in (self.results, REFERENCE)]
            roots = (self.results, REFERENCE) if self.others else ()
            every = [folder for root in roots for folder in machine_folders(root)]
            names = nearest_machines(self.machine, [folder.name for folder in every])
            self._folders = own + [folder for name in names for folder in every if folder.name == name]
        return self._folders


def nearest_machines(machine: str, others: Sequence[str]) -> list[str]:
    """Return the other machines with the same kind of device, the most similar first.

    CPUs are compared by their number of cores first, then by name. GPUs are compared by name.
    """
    same_kind = {name for name in others if name != machine and name.startswith("cpu-") == machine.startswith("cpu-")}

    def distance(name: str) -> tuple[float, float, str]:
        likeness = difflib.SequenceMatcher(None, name, machine).ratio()
        return abs(math.log2(_cores(name) / _cores(machine))), -likeness, name

    return sorted(same_kind, key=distance)


def _cores(machine: str) -> int:
    match = re.search(r"-(\d+)-cores", machine)
    return max(1, int(match.group(1))) if match else 1
