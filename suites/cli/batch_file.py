"""Lines of a batch: the file, the words of each line, and the lines that share an engine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path

from backends.description import SourceKind
from backends.registry import descriptions
from suites.cli.cell_commands import split_sweep
from suites.cli.command_line import FLAGS, overrides
from suites.cli.hydra_errors import check_keys
from suites.root import CONF
from suites.schema.config import RunConfig
from suites.schema.refusals import Refused, decoded, did_you_mean, first_line, read_bytes
from suites.suite import load_suite, suite_names

ACCURACY_SUITE = "suite=accuracy"
"""Word of a line that scores the outputs of an engine. suite=latency measures the times of the same engine."""

Line = Sequence[str]

Build = Enum("Build", ["nothing", "files", "engine"])
"""What a build makes: nothing, exported files in seconds, or an engine in minutes."""


def batch_file(path: Path) -> Path:
    """Return the file of a batch: `path`, or the batch of the project with this name (with or without .txt).

    Raises:
        Refused: `path` is only a name, and there is no such file or batch.
    """
    if len(path.parts) != 1 or os.path.lexists(path):
        return path
    own = {file.stem: file for file in sorted((CONF / "batches").glob("*.txt"))}
    name = path.name.removesuffix(".txt")
    if name not in own:
        raise Refused(
            f"there is no file {path}; {did_you_mean(name, own)}use a file or a batch of the project: {', '.join(own)}"
        )
    return own[name]


def read_lines(path: Path) -> list[list[str]]:
    """Return the words of each line that is not empty; see `numbered_commands`."""
    return [words for _, words in numbered_commands(path)]


def numbered_commands(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the words of each line that is not empty.

    Raises:
        Refused: the file cannot be read, a quotation mark is not closed, or a line ends with a backslash.
    """
    for number, line in enumerate(decoded(str(path), read_bytes("FILE", path)).splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise Refused(
                f"{path}, line {number}: {str(error).lower()}; write one command per line, with quotes as in a shell"
            ) from None
        if words:
            yield number, words


def read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Return the cells of all lines of a file, in order, each with the number of its line.

    Raises:
        Refused: a line is not a command line of suites.run; the message has the number of the line.
    """
    cells = []
    for number, words in numbered_commands(path):
        try:
            overrides(words, FLAGS)
            line_cells = split_sweep(words)
            if not any(word.startswith(("--config-dir", "-cd")) for word in words):
                check_keys(chain.from_iterable(line_cells))
            cells += [(number, cell) for cell in line_cells]
        except Refused as reason:
            raise Refused(f"{path}, line {number}: {reason}") from None
        except Exception as error:  # Hydra raises many types of errors for a line that it cannot read
            raise Refused(f"{path}, line {number}: {first_line(error)}") from None
    return cells


def group_by_engine(lines: Sequence[Line]) -> list[list[Line]]:
    """Group the lines that use one engine, in the order of the first line of each group.

    Tasks share an engine only where task.calibration= gives the texts that it is calibrated with.
    """
    engines: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        calibrated = any(word.startswith("task.calibration=") for word in line)
        ignored = (
            "-m",
            ACCURACY_SUITE,
            "suite=latency",
            *(word for word in line if calibrated and word.startswith("task=")),
        )
        engines.setdefault(tuple(sorted(set(line).difference(ignored))), []).append(line)
    return list(engines.values())


def build_of(words: Line) -> Build:
    """Return what the build of a line makes. A line whose backend is not in its words counts as one with an engine."""
    names = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("backend=")]
    if not names or names[-1] not in descriptions():
        return Build.engine
    backend = descriptions()[names[-1]]
    if backend.builds_engine:
        return Build.engine
    return Build.files if backend.source is SourceKind.onnx else Build.nothing


def process_count(words: Sequence[str]) -> int:
    """Return the number of processes of a line; 1 for suites that measure in one process."""
    if not {"suite=latency"}.intersection(words) and any(word.startswith("suite=") for word in words):
        return 1
    values = [word.partition("=")[2] for word in words if word.startswith("repeats=")]
    return int(values[-1]) if values and values[-1].isdigit() else RunConfig().repeats


def is_timed_line(line: Line) -> bool:
    """Return whether a line measures times. Lines without times may run at the same time as others."""
    suites = [word.partition("=")[2] for word in line if word.startswith("suite=")]
    return not any(name in suite_names() and not load_suite(name).timed for name in suites)
