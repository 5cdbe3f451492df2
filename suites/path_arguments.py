"""Arguments that are paths or names of columns: quoted for Hydra, so that they are taken as they were typed.

Hydra's grammar gives =, commas, brackets, quotes and spaces a meaning; folders of checkpoints are often called
lr=3e-5,bs=32 or model (1), and columns of texts #1 String.
"""

from __future__ import annotations

import os
import re

PATH_KEYS = (
    "model.path",
    "model.tokenizer",
    "task.path",
    "task.calibration",
    "lengths.path",
    "switching.trace",
    "results",
    "cache",
    "interpreter.main",
    "interpreter.trt",
)

COLUMN_KEYS = ("task.text", "task.pair", "task.label")

PATH_LISTS = ("trt.plugin_libraries",)

SWEEPS = re.compile(r"(choice|glob|range|interval|shuffle|sort|tag)\(.*\)", re.DOTALL)
"""Functions of Hydra's grammar that a sweep may have in the place of values."""

INTERPOLATION = "${"


def quoted_path(word: str, sweeping: bool) -> str:
    """`word`, an argument key=value, with its value quoted if its key is that of a path or of a column; any other word
    as it is.

    A value that is quoted already is left alone, and so is one with an interpolation, unless there is a file of that
    very name. In a sweep a comma parts two paths where no path with that comma exists.
    """
    key, equal, value = word.partition("=")
    name = key.lstrip("+")
    if not equal or not value or name not in (*PATH_KEYS, *COLUMN_KEYS, *PATH_LISTS):
        return word
    if name in PATH_LISTS:
        listed = re.fullmatch(r"\[(.*)\]", value, re.DOTALL)
        return f"{key}=[{_each(listed.group(1))}]" if listed and not sweeping else word
    if not exists(value):
        if _is_quoted(value) or (sweeping and SWEEPS.fullmatch(value)):
            return word
        if sweeping:
            return f"{key}={_each(value)}"
    return f"{key}={_quote(value)}"


def exists(path: str) -> bool:
    """Whether there is a file or folder of this name."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _each(values: str) -> str:
    """Paths between commas, quoted one by one."""
    return ",".join(part if _is_quoted(part) else _quote(part) for part in _parts(values))


def _parts(values: str) -> list[str]:
    """The paths in a text with commas: as few as possible where one that has a comma exists, else one a comma."""
    pieces = _split(values)
    parts: list[str] = []
    while pieces:
        size = next((n for n in range(len(pieces), 1, -1) if exists(",".join(pieces[:n]))), 1)
        parts.append(",".join(pieces[:size]))
        pieces = pieces[size:]
    return parts


def _split(values: str) -> list[str]:
    """At commas, but those in quotes that enclose a whole piece; an empty piece at the end is left out."""
    pieces = re.findall(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*)(?:,|$)""", values)
    return pieces[:-1]


def _is_quoted(value: str) -> bool:
    return re.fullmatch(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", value, re.DOTALL) is not None


def _quote(path: str) -> str:
    if INTERPOLATION in path and not exists(path):
        return path
    from hydra.core.override_parser.types import Quote, QuotedString

    # OmegaConf replaces ${...} also within quotes, unless an odd number of backslashes stands in front.
    typed = re.sub(r"(\\*)\$\{", lambda found: f"{found.group(1) * 2}\\{INTERPOLATION}", _at_home(path))
    return str(QuotedString(typed, Quote.double).with_quotes())


def _at_home(path: str) -> str:
    """With the home folder for a leading ~, which shells leave alone behind key=."""
    return path if not path.startswith("~") or exists(path) else os.path.expanduser(path)
