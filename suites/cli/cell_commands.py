"""Command lines of single cells: those of a sweep, and the one of a record."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from suites.cli.command_line import PROGRAM
from suites.cli.hydra_errors import explain_malformed_override
from suites.cli.path_arguments import quoted_path
from suites.records.cell import Cell
from suites.schema.refusals import Refused
from suites.tables.distinctions import flat

SWEEP_FLAGS = ("-m", "--multirun")

CELL_KEYS = ("suite", "backend", "precision", "model")
"""Keys with the names of fields of a cell."""


def split_sweep(line: Sequence[str]) -> list[list[str]]:
    """Split a sweep into one line for each combination of its values.

    A sweep in the file of an experiment stays one line.

    Raises:
        Refused: a word is not an override in Hydra's grammar.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    choices = []
    sweeping = bool({"-m", "--multirun"} & set(line))
    for word in (quoted_path(typed, sweeping) for typed in line):
        try:
            override = None if word.startswith("-") else parser.parse_override(word)
        except HydraException:
            raise Refused(explain_malformed_override(word)) from None
        if override is not None and override.is_sweep_override():
            choices.append([f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()])
        else:
            choices.append([word])
    return [list(words) for words in product(*choices)]


def run_arguments(command: Sequence[str]) -> list[str] | None:
    """Return the arguments of `suites.run` in a command, or None if it is another command."""
    words = list(command)
    for start in (["-m", "suites.run"], [PROGRAM, "run"]):
        for index in range(len(words) - 1):
            if words[index : index + 2] == start:
                return words[index + 2 :]
    return None


def lines_of_cell(arguments: Sequence[str], cell: Cell) -> list[list[str]]:
    """Return the lines of a sweep that can measure a cell, by the values of the keys that are swept.

    There are several if the values of some keys are not in the cell. A line has no flag for sweeps, unless the sweep is
    in the file of an experiment.

    Raises:
        Refused: a word is not an override in Hydra's grammar.
    """
    if not set(SWEEP_FLAGS) & set(arguments):
        return [list(arguments)]
    as_typed = {quoted_path(word, True): word for word in arguments}
    lines = [[as_typed.get(word, word) for word in line] for line in split_sweep(arguments)]
    options = dict(flat(cell.options))
    known = {key: str(getattr(cell, key)) for key in CELL_KEYS}
    for key in {word.partition("=")[0] for line in lines for word in line if "=" in word}:
        value = known.get(key, options.get(key, options.get(key.rpartition(".")[2])))
        lines = [line for line in lines if f"{key}={value}" in line] or lines
    if any(word.startswith("experiment=") for word in arguments):
        return lines
    return [[word for word in line if word not in SWEEP_FLAGS] for line in lines]


def command_of_cell(command: Sequence[str], cell: Cell) -> list[str]:
    """Return the command that measures only this cell, or the whole command if this is not known."""
    arguments = run_arguments(command)
    if arguments is None:
        return list(command)
    try:
        lines = lines_of_cell(arguments, cell)
    except Refused:
        return list(command)
    return [*command[: len(command) - len(arguments)], *lines[0]] if len(lines) == 1 else list(command)
