"""Join results of several machines in one folder: `python -m suites.merge DIR... [--output RESULTS]`.

Files are copied byte for byte, and the folders DIR do not change. If two folders have a record of the same cell from
the same device, one record wins whole, and a line says which. Records of another device of the same name are kept as
those of another machine.
"""

from __future__ import annotations

import suites.cli.dependencies  # noqa: F401  # checks the libraries before the imports below need them

# isort: split
import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from backends.atomic_file import write_atomically
from suites.asking.user_folders import default_folder
from suites.cli.command_line import CommandParser, program, run_guarded
from suites.cli.output import run_with_tolerant_output
from suites.records.record import OK, Record, write_record
from suites.records.results_folder import MachineFolder, check_results_folder, machine_folders
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused
from suites.text import one_line

Key = tuple[str, str, str]
"""Machine, suite and file name of a record."""


@dataclass(frozen=True)
class Item:
    """One record of a results folder, and its file."""

    source: Path
    path: Path
    key: Key
    record: Record

    @property
    def uuid(self) -> str:
        return self.record.environment.uuid

    @property
    def rank(self) -> tuple[bool, int, int, int, str]:
        """Order of records of one cell and device: the largest wins."""
        record = self.record
        return (
            record.outcome == OK, record.harness, record.scoring, len(record.processes), record.measured_at,
        )  # fmt: skip

    def __str__(self) -> str:
        record = self.record
        count = len(record.processes) + 1
        return (
            f"{self.source} ({record.outcome}, {count} process{'es' * (count > 1)}, {record.measured_at or 'no date'})"
        )


@dataclass
class Merge:
    """Records to join in one folder.

    Attributes:
        items: records of the folders, first those that the output has already.
        unread: files that are not records that this version can use: folder, file, machine, suite and reason.
        lines: lines for the user.
        counts: number of files of each folder by outcome.
    """

    output: Path
    items: list[Item] = field(default_factory=list)
    unread: list[tuple[Path, Path, tuple[str, str], str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    counts: dict[Path, Counter[str]] = field(default_factory=dict)

    def read(self, source: Path) -> None:
        """Read the records of a results folder.

        Raises:
            Refused: a folder cannot be read.
        """
        self.counts[source] = Counter()
        for folder in machine_folders(source):
            for suite in folder.suites():
                for path, record in folder.read_files(suite).items():
                    self.items.append(Item(source, path, (folder.name, suite, path.name), record))
            self.unread += [
                (source, path, (folder.name, path.parent.name), reason) for path, reason in folder.bad.items()
            ]

    def write(self) -> None:
        """Write the output."""
        moved = self._other_devices()
        kept: dict[Key, Item] = {}
        for item in self.items:
            machine, *rest = item.key
            key = (moved.get((machine, item.uuid), machine), rest[0], rest[1])
            inside = item.source == self.output
            earlier = kept.get(item.key if inside else key)
            if inside:
                kept[item.key] = item
            elif earlier is None:
                kept[key] = item
                self._copy(item, key[0])
            elif _same(earlier.record, item.record):
                self.counts[item.source]["already there"] += 1
            else:
                self._choose(kept, key, item)
        for entry in self.unread:
            self._copy_unread(*entry)
        for source in self.counts:
            if source != self.output:
                self._copy_kernels(source)

    def _other_devices(self) -> dict[tuple[str, str], str]:
        """Return the machine name for each machine and device whose cells another device of this name has too.

        The device with the first record of a name keeps the name.
        """
        first: dict[str, str] = {}
        of_cell: dict[Key, set[str]] = {}
        for item in self.items:
            first.setdefault(item.key[0], item.uuid)
            of_cell.setdefault(item.key, set()).add(item.uuid)
        moved = {}
        for (machine, _, _), uuids in of_cell.items():
            for uuid in uuids - {first[machine]} if len(uuids) > 1 else ():
                moved[machine, uuid] = f"{machine}-{hashlib.sha256(uuid.encode()).hexdigest()[:6]}"
        for (machine, uuid), name in sorted(moved.items()):
            self.lines.append(f"{machine}: records of another device, {uuid or 'unknown'}, are those of machine {name}")
        return moved

    def _copy(self, item: Item, machine: str) -> None:
        if machine == item.key[0]:
            write_atomically(self.output / machine / "records" / item.key[1] / item.key[2], item.path.read_bytes())
        else:
            environment = replace(item.record.environment, machine=machine)
            write_record(self.output, replace(item.record, environment=environment))
        self.counts[item.source]["copied"] += 1

    def _choose(self, kept: dict[Key, Item], key: Key, item: Item) -> None:
        """Keep the better of two records of one cell and device, and say so."""
        earlier = kept[key]
        winner, other = (item, earlier) if item.rank > earlier.rank else (earlier, item)
        if winner is item:
            kept[key] = item
            self._copy(item, key[0])
            self.counts[earlier.source]["copied"] -= 1
        self.counts[other.source]["left out"] += 1
        self.lines.append(f"{'/'.join(key)}: the record of {winner} is kept, that of {other} is left out")

    def _copy_unread(self, source: Path, path: Path, place: tuple[str, str], reason: str) -> None:
        """Copy a file that this version cannot use, such as a record of a later version, if its place is free."""
        if source == self.output:
            self.lines.append(f"{path}: {reason}")
            return
        target = self.output / place[0] / "records" / place[1] / path.name
        try:
            content = path.read_bytes()
        except OSError as error:
            self.lines.append(f"{path} is left out: {error.strerror}")
            return
        if not target.exists():
            write_atomically(target, content)
            self.counts[source]["copied without reading"] += 1
            self.lines.append(f"{path} is copied, but this version cannot use it: {reason}")
        elif target.read_bytes() != content:
            self.counts[source]["left out"] += 1
            self.lines.append(
                f"{path} is left out, because {target} exists and this version cannot compare them: {reason}"
            )

    def _copy_kernels(self, source: Path) -> None:
        """Copy profiles of kernels whose names are free."""
        for folder in machine_folders(source):
            target = MachineFolder(self.output, folder.name).kernels
            for path in sorted(folder.kernels.glob("*.csv")):
                if not (target / path.name).exists():
                    write_atomically(target / path.name, path.read_bytes())

    def summary(self, source: Path) -> str:
        """Return one line about a folder: the number of its records, their fate, and the versions that wrote them."""
        own = [item.record for item in self.items if item.source == source]
        fates = ", ".join(f"{count} {fate}" for fate, count in self.counts[source].items() if count)
        return f"{source}: {len(own)} records ({fates or 'none new'}); written by {_versions(own)}"


def _same(one: Record, other: Record) -> bool:
    """Return whether two records are equal. The name of the machine may differ."""
    return replace(one, environment=replace(one.environment, machine="")) == replace(
        other, environment=replace(other.environment, machine="")
    )


def _versions(records: Iterable[Record]) -> str:
    """Return the versions of the suite that made records, with the versions of their timing."""
    versions = {
        f"{record.maker.version if record.maker else 'an early version'} (timing {record.harness}, scoring "
        f"{record.scoring})"
        for record in records
    }
    return one_line(", ".join(sorted(versions)) or "no version that can be read")


def main(arguments: Sequence[str]) -> int:
    """Join results folders. Return 0, 1 if a file cannot be used, or 2 if a folder has no records."""

    def merge() -> int:
        options = _parser().parse_args(arguments)
        output = Path(options.output or default_folder("results"))
        sources = [Path(name) for name in dict.fromkeys(options.folders)]
        for source in sources:
            if source.resolve() == output.resolve():
                raise Refused(f"{source} is the output; leave it out, because the output keeps its records")
            check_results_folder(source)
        merged = Merge(output)
        for folder in (output, *sources):
            merged.read(folder)
        merged.write()
        print("\n".join([*map(merged.summary, sources), *map(one_line, merged.lines)]))
        print(f"next: {program('report')} {output}")
        return int(bool(merged.unread))

    return run_guarded(merge)


def _parser() -> CommandParser:
    parser = CommandParser(
        "merge",
        "Join results of several machines in one folder.\n\n"
        "The folders do not change, and their files are copied byte for byte. If two folders have a record of one\n"
        "cell and device, one record wins whole: ok before other outcomes, then the newer version of the timing, then\n"
        "more processes, then the later date. Records of another device of that name are those of another machine.\n"
        "Output: the number of records of each folder, a line for each case in which one record won, and the command\n"
        "that writes the tables. The records are files below RESULTS.\n"
        "Exit status: 0 all files are joined, 1 this version cannot use a file, 2 the command was refused.",
        ("node1_results node2_results", f"{RunConfig.results} results/reference --output all_results"),
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="folder of results")
    parser.add_argument(
        "--output", metavar="RESULTS", help=f"folder that gets the records; default {RunConfig.results}"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run_with_tolerant_output(lambda: main(sys.argv[1:])))
