"""The layout of a results folder, and reading its records.

A record is `<results>/<machine>/records/<suite>/<cell>.json`. Tables are in `<results>/<machine>/tables`, plots in
`plots`, kernel profiles in `kernels`. Records of the former layout, `<results>/records/<machine>/<suite>/<cell>.json`,
are read as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from backends.json_part import unknown_fields
from suites.records.record import Record, read_record
from suites.records.value_types import MACHINE_NAME, BadRecord
from suites.schema.refusals import Refused

FORMER = "records"
"""Folder of all records in the former layout. No machine has this name."""


class MachineFolder:
    """Results of one machine. Each record is read at most once.

    Attributes:
        bad: files that are not valid records, with the reason.
    """

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name = results, name
        self.path = results / name
        self.bad: dict[Path, str] = {}
        self._read: dict[Path, Record | None] = {}

    @property
    def tables(self) -> Path:
        return self.path / "tables"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def kernels(self) -> Path:
        """Folder of kernel profiles. In the former layout it was among the records."""
        former = self.results / FORMER / self.name / "kernels"
        return former if former.is_dir() and not (self.path / "kernels").is_dir() else self.path / "kernels"

    def suites(self) -> list[str]:
        """Return the sorted names of the suites that have a file."""
        folders = (self.path / "records", self.results / FORMER / self.name)
        return sorted({name for folder in folders for name in self._listed(folder) if self._files(name)})

    def records(self, suite: str) -> list[Record]:
        """Return the records of a suite, sorted by file name. Files that are not valid records are added to `bad`."""
        return list(self.read_files(suite).values())

    def records_of_backend(self, suite: str, backend: str) -> list[Record]:
        """Return the records of a suite and a backend. It reads only files with the backend in their names."""
        read = (self._record_at(path) for path in self._files(suite) if f"{backend}-" in path.name)
        return [record for record in read if record is not None and record.cell.backend == backend]

    def read_files(self, suite: str) -> dict[Path, Record]:
        """Return the records of a suite by file. Files that are not valid records are added to `bad`."""
        read = {path: self._record_at(path) for path in self._files(suite)}
        return {path: record for path, record in read.items() if record is not None}

    def record(self, suite: str, cell_id: str) -> Record | None:
        """Return one record, or None if it is missing or not valid."""
        for folder in self._folders(suite):
            path = folder / f"{cell_id}.json"
            if path.is_file():
                return self._record_at(path)
        return None

    def unknown_fields(self) -> dict[Path, list[str]]:
        """Return the unknown fields of the records that were read, by file. They are kept, but no table uses them."""
        read = {path: unknown_fields(record) for path, record in self._read.items() if record is not None}
        return {path: names for path, names in read.items() if names}

    def leave_out(self, record: Record, reason: str) -> None:
        """Treat a record as bad from now on."""
        for path, stored in self._read.items():
            if stored is record:
                self._read[path], self.bad[path] = None, reason
                return

    def _folders(self, suite: str) -> tuple[Path, Path]:
        return self.path / "records" / suite, self.results / FORMER / self.name / suite

    def _files(self, suite: str) -> list[Path]:
        paths: dict[str, Path] = {}
        for folder in self._folders(suite):
            for name in self._listed(folder):
                if name.endswith(".json") and not name.startswith("."):
                    paths.setdefault(name, folder / name)
        return [paths[name] for name in sorted(paths)]

    def _listed(self, folder: Path) -> Sequence[str]:
        """Return the names in a folder. A folder that exists but cannot be read is added to `bad`."""
        try:
            return _names(folder)
        except OSError as error:
            self.bad[folder] = f"the folder cannot be read: {error.strerror}"
            return ()

    def _record_at(self, path: Path) -> Record | None:
        if path not in self._read:
            try:
                self._read[path] = _check_path(read_record(path), path, self.name)
            except OSError as error:
                self._read[path], self.bad[path] = None, error.strerror or str(error)
            except BadRecord as error:
                self._read[path], self.bad[path] = None, str(error)
        return self._read[path]


def machine_folders(results: Path) -> list[MachineFolder]:
    """Return the machines that have records in a results folder, sorted by name.

    Raises:
        Refused: the folder exists but cannot be read.
    """
    try:
        names = {name for name in _names(results) if (results / name / "records").is_dir() and name != FORMER}
        names |= {name for name in _names(results / FORMER) if (results / FORMER / name).is_dir()}
    except OSError as error:
        raise Refused(f"{error.filename} cannot be read ({error.strerror}); correct its permissions") from None
    return [MachineFolder(results, name) for name in sorted(names) if MACHINE_NAME.fullmatch(name)]


def folders_to_read(path: Path) -> list[MachineFolder]:
    """Return the machines of a results folder, or the one machine whose folder `path` is.

    Raises:
        Refused: the folder exists but cannot be read.
    """
    if _is_of_one_machine(path):
        resolved = path.resolve()
        return [MachineFolder(resolved.parent, resolved.name)]
    return machine_folders(path)


def check_results_folder(path: Path) -> None:
    """
    Raises:
        Refused: a command that writes to a results folder got the folder of one machine, or a folder without records.
    """
    if _is_of_one_machine(path):
        raise Refused(f"{path} is the folder of one machine; give the folder above it, {path.resolve().parent}")
    if not machine_folders(path):
        raise Refused(f"{path} has no records (MACHINE/records/SUITE/*.json); give a folder that runs wrote to")


def _is_of_one_machine(path: Path) -> bool:
    # `records` has a folder for each suite there. In the former layout of a results folder it has one for each machine.
    return any((path / FORMER).glob("*/*.json"))


def read_records(results: Path, suite: str) -> Iterator[Record]:
    """Yield all records of a suite in a results folder, machine by machine.

    Raises:
        BadRecord: a file is not a valid record.
    """
    for folder in machine_folders(results):
        records = folder.records(suite)
        if folder.bad:
            path, reason = next(iter(folder.bad.items()))
            raise BadRecord(f"{path}: {reason}")
        yield from records


def _names(folder: Path) -> Sequence[str]:
    """Return the sorted names in a folder; empty if there is no such folder."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def _check_path(record: Record, path: Path, machine: str) -> Record:
    """Return the record after a check that its path matches its machine, suite and cell.

    Raises:
        BadRecord: the path does not match.
    """
    # Only the digest in the file name is compared: earlier versions wrote the model's name in another format.
    expected_names = (record.environment.machine, record.cell.suite, record.cell.id.rpartition("-")[2])
    path_names = (machine, path.parent.name, path.stem.rpartition("-")[2])
    for kind, expected, actual in zip(("machine", "suite", "cell"), expected_names, path_names, strict=True):
        if expected != actual:
            raise BadRecord(f"its {kind} is {expected}, but the path of the file is that of {actual}")
    return record
