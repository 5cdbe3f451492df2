"""A side of a comparison: a record file, a cell id, a backend, a folder of records, or a commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from backends.registry import descriptions
from suites.comparing.revisions import committed_records, find_commit, names_of_commits
from suites.records.record import OK, Record, read_record
from suites.records.results_folder import MachineFolder, folders_to_read, machine_folders
from suites.records.value_types import BadRecord
from suites.schema.refusals import Refused, did_you_mean, shortened

SUITE = "latency"
"""The suite whose records are compared."""

COMMIT = "commit:"
"""Prefix of a side that is a git revision. Without it, a file, folder, cell id or backend of this name counts first."""

Kind = Enum("Kind", ["record", "backend", "folder", "commit"])


@dataclass(frozen=True)
class Side:
    """Records of a side.

    Attributes:
        typed: the side as it was typed.
        source: description of the place of the records, in one line.
        records: latency records with outcome ok and with measurements.
        left_out: reasons why records or files were left out, each with the number of them.
        commit: full id of the commit; empty for other kinds.
    """

    typed: str
    kind: Kind
    source: str
    records: tuple[Record, ...]
    left_out: tuple[str, ...] = ()
    commit: str = ""


@dataclass
class Archive:
    """The results folder that cell ids, backends and commits are searched in.

    Attributes:
        path: results folder.
        machine: part of the name of a machine; only matching machines are read.
    """

    path: Path
    machine: str = ""
    _folders: list[MachineFolder] | None = field(default=None, repr=False)

    @property
    def folders(self) -> list[MachineFolder]:
        """The machines of the folder. Their records are read at most once."""
        if self._folders is None:
            self._folders = of_machine(folders_to_read(self.path), self.machine)
        return self._folders

    @property
    def read_folders(self) -> list[MachineFolder]:
        """The machines, if their records were needed; empty otherwise."""
        return self._folders or []

    @property
    def records(self) -> list[Record]:
        return [record for folder in self.folders for record in folder.records(SUITE)]


def of_machine(folders: Sequence[MachineFolder], machine: str) -> list[MachineFolder]:
    """Return the folders whose machine has `machine` in its name.

    Raises:
        Refused: no machine matches.
    """
    chosen = [folder for folder in folders if machine in folder.name]
    if folders and not chosen:
        names = [folder.name for folder in folders]
        raise Refused(f"--machine {shortened(machine)}: no such machine; {did_you_mean(machine, names)}"
                      f"choices: {', '.join(names)}")  # fmt: skip
    return chosen


def find_side(typed: str, archive: Archive) -> Side:
    """Return the side that a word names.

    Raises:
        Refused: the word names nothing, or the records cannot be compared.
    """
    if not typed.strip():
        raise Refused("a side is empty; give a record file, a cell id, a backend, a folder or a commit")
    finders: tuple[Callable[[str, Archive], Side | None], ...] = (_of_path, _of_cell, _of_backend, _of_commit)
    for find in (_of_commit,) if typed.startswith(COMMIT) else finders:
        if (side := find(typed, archive)) is not None:
            return side
    raise Refused(_unknown(typed, archive))


def _of_path(typed: str, archive: Archive) -> Side | None:
    path = Path(typed)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return None
    if is_folder:
        return _of_folder(typed, path, archive.machine)
    if not is_file:
        return None
    try:
        record = read_record(path)
    except (BadRecord, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Refused(f"{shortened(typed)}: {reason}; give a file MACHINE/records/{SUITE}/CELL.json") from None
    return _of_record(typed, record, f"record {typed}")


def _of_record(typed: str, record: Record, source: str) -> Side:
    if record.cell.suite != SUITE:
        raise Refused(f"{shortened(typed)} is a record of suite={record.cell.suite}; give a record of suite={SUITE}")
    records, left_out = usable([record])
    if not records:
        raise Refused(f"{shortened(typed)}: {left_out[0].partition(': ')[2]}; give a record with outcome ok")
    return Side(typed, Kind.record, source, records)


def _of_folder(typed: str, path: Path, machine: str) -> Side:
    folders = of_machine(folders_to_read(path), machine)
    side = of_folders(typed, folders, f"folder {typed}")
    if not side.records:
        raise Refused(
            f"{shortened(typed)} has no records of suite={SUITE} that can be compared"
            f"{'; left out: ' + '; '.join(side.left_out) if side.left_out else ''}; give a results folder "
            f"(MACHINE/records/{SUITE}/*.json) or the folder of a machine"
        )
    return side


def of_folders(typed: str, folders: Sequence[MachineFolder], source: str) -> Side:
    """Return a side with all latency records of machines."""
    records, left_out = usable(record for folder in folders for record in folder.records(SUITE))
    bad = [f"{path.name} is not a valid record ({reason})" for folder in folders for path, reason in folder.bad.items()]
    return Side(typed, Kind.folder, source, records, (*left_out, *bad))


def usable(records: Iterable[Record]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """Return the records that have times, and for each reason why others are left out, how many those are."""
    kept, counts = [], dict[str, int]()
    for record in records:
        if record.outcome == OK and record.measurements:
            kept.append(record)
        else:
            reason = f"outcome {record.outcome}" if record.outcome != OK else "no times"
            counts[reason] = counts.get(reason, 0) + 1
    return tuple(kept), tuple(f"{counted(count, 'record')}: {reason}" for reason, count in counts.items())


def counted(number: int, noun: str) -> str:
    """Return a number with its noun in the singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _of_cell(typed: str, archive: Archive) -> Side | None:
    found = [record for record in archive.records if record.cell.id == typed]
    if len(found) > 1:
        machines = ", ".join(sorted(record.environment.machine for record in found))
        raise Refused(f"{typed} was measured on several machines: {machines}; choose one with --machine")
    return _of_record(typed, found[0], f"cell {typed}") if found else None


def _of_backend(typed: str, archive: Archive) -> Side | None:
    found = [record for record in archive.records if record.cell.backend == typed]
    if not found:
        if typed in descriptions():
            here = sorted({record.cell.backend for record in archive.records})
            raise Refused(f"{archive.path} has no records of backend={typed}; "
                          f"{'it has ' + ', '.join(here) if here else 'it has no latency records'}; "
                          "choose another folder with --records, or measure it first")  # fmt: skip
        return None
    records, left_out = usable(found)
    return Side(typed, Kind.backend, f"backend {typed} in {archive.path}", records, left_out)


def _of_commit(typed: str, archive: Archive) -> Side | None:
    revision = typed.removeprefix(COMMIT)
    commit = find_commit(revision)
    if not commit:
        if not typed.startswith(COMMIT):
            return None
        hint = did_you_mean(revision, names_of_commits())
        raise Refused(f"{shortened(typed)}: git has no commit of this name; {hint}give a commit, branch or tag")
    try:
        here = archive.records
    except Refused:  # the machine may be in the commit only
        here = []
    made = [record for record in here if _is_made_by(record, commit)]
    clean = [record for record in made if not (record.maker and record.maker.dirty)]
    if clean:
        records, left_out = usable(clean)
        changed = len(made) - len(clean)
        left_out += (f"{counted(changed, 'record')}: made by changed code",) if changed else ()
        return Side(typed, Kind.commit, f"records of {archive.path} by commit {commit[:12]}", records, left_out, commit)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(committed_records(commit, archive.path))
        folders = of_machine(machine_folders(folder), archive.machine) if folder else []
        side = of_folders(typed, folders, "")
        return Side(typed, Kind.commit, f"records in commit {commit[:12]}", side.records, side.left_out, commit)


def _is_made_by(record: Record, commit: str) -> bool:
    made_by = record.maker.commit if record.maker else ""
    return len(made_by) >= 7 and commit.startswith(made_by)


def _unknown(typed: str, archive: Archive) -> str:
    """Return the refusal of a word that names no side, with the nearest name."""
    cells = [record.cell.id for record in archive.records]
    parent = Path(typed).parent
    paths: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        paths = [str(path) for path in parent.iterdir()] if parent.is_dir() else []
    hint = did_you_mean(typed, [*descriptions(), *cells, *paths, *names_of_commits()])
    where = f"{archive.path} has {counted(len(cells), 'latency record')}"
    return (
        f"{shortened(typed)} is not a file, a folder, a cell id, a backend or a commit; {hint}{where}; "
        "choose another folder with --records"
    )
