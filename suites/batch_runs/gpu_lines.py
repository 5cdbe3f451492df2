"""Lines of a batch that need a GPU, on a machine without one: they are found before any line starts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from backends.registry import describe
from suites.asking.chosen_machine import NoGpu, machine_of
from suites.asking.resolve_options import backend_options
from suites.cli import hydra_errors, local_settings
from suites.cli.batch_file import Line
from suites.cli.cell_commands import SWEEP_FLAGS
from suites.cli.command_line import overrides
from suites.cli.composing import checked_config, composed
from suites.schema.refusals import Refused

DECISIVE = ("backend", "device", "experiment")
"""Keys that decide whether a cell that is measured needs a GPU."""


def cells_without_gpu(cells: Sequence[tuple[int, Line]], common: Sequence[str]) -> list[tuple[int, Line]]:
    """Return the cells, with the numbers of their lines, that would be refused because no GPU is visible.

    A line that is refused for another reason is not among them, nor is a sweep in the file of an experiment.

    Args:
        common: arguments that are added to every line.
    """
    local_settings.register()
    known: dict[tuple[str, ...], bool] = {}
    found = []
    for number, line in cells:
        words = tuple(word for word in (*line, *common) if not word.startswith("-"))
        if any(word.startswith("experiment=") for word in words) and set(SWEEP_FLAGS) & set(line):
            continue
        # A cell that is only built may name a GPU in any option of its backend.
        key = words if any(word.startswith("until=") for word in words) else tuple(filter(_is_decisive, words))
        if key not in known:
            known[key] = _needs_gpu(key)
        if known[key]:
            found.append((number, line))
    return found


def line_numbers(cells: Sequence[tuple[int, Line]]) -> str:
    """Return the numbers of the lines of cells, as in "lines 2, 5 to 7"."""
    numbers = sorted({number for number, _ in cells})
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), lambda item: item[1] - item[0])]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return f"line{'' if len(numbers) == 1 else 's'} {', '.join(texts)}"


def _is_decisive(word: str) -> bool:
    return word.partition("=")[0].lstrip("+") in DECISIVE


def _needs_gpu(words: Sequence[str]) -> bool:
    try:
        config = checked_config(composed(overrides(words)))
        machine_of(config, describe(config.backend), backend_options(config))
    except NoGpu:
        return True
    except Refused:
        return False
    except hydra_errors.composition_errors():
        return False
    return False
