"""Quote arguments that are paths or names of columns, so that Hydra reads them as typed.

In Hydra's grammar the characters =, comma, brackets, quotes and space have a meaning. Folders of checkpoints often have
names such as lr=3e-5,bs=32 or model (1), and columns of texts have names such as #1 String.
"""

from __future__ import annotations

import os
import re
from dataclasses import MISSING, fields

from backends.registry import interpreters, option_groups

PATH_KEYS = (
    "model.path",
    "model.tokenizer",
    "task.path",
    "task.calibration",
    "task.corpus",
    "lengths.path",
    "serving.trace",
    "switching.trace",
    "tritonserver.python",
    "tritonserver.server",
    "results",
    "cache",
)

COLUMN_KEYS = ("task.text", "task.pair", "task.label", "task.score")

SWEEPS = re.compile(r"(choice|glob|range|interval|shuffle|sort|tag)\(.*\)", re.DOTALL)
"""Functions of Hydra's grammar that a sweep may use instead of values."""

INTERPOLATION = "${"


def quoted_path(word: str, sweeping: bool) -> str:
    """Return the argument `word` with a quoted value if its key is a path or a column. Return other words unchanged.

    A value that is already quoted, or that contains an interpolation, does not change, unless a file with this exact
    name exists. In a sweep, a comma separates two paths if no path with this comma exists.
    """
    key, equal, value = word.partition("=")
    name = key.lstrip("+")
    if not equal or not value or not (name in (*PATH_KEYS, *COLUMN_KEYS) or "." in name):
        return word
    path_lists = path_options(listed=True)
    if name not in (*PATH_KEYS, *COLUMN_KEYS, *path_lists, *path_options(listed=False), *interpreter_keys()):
        return word
    if name in path_lists:
        listed = re.fullmatch(r"\[(.*)\]", value, re.DOTALL)
        return f"{key}=[{_each(listed.group(1))}]" if listed and not sweeping else word
    if not exists(value):
        if _is_quoted(value) or (sweeping and SWEEPS.fullmatch(value)):
            return word
        if sweeping:
            return f"{key}={_each(value)}"
    return f"{key}={_quote(value)}"


def path_options(listed: bool) -> list[str]:
    """Return the options of backends that are lists of paths if `listed`, else those that are one path."""
    return [
        f"{group}.{item.name}"
        for group, schema in option_groups().items()
        for item in fields(schema)
        if item.metadata.get("paths") and (item.default is MISSING) == listed
    ]


def interpreter_keys() -> list[str]:
    """Return the keys of the group `interpreter`, which are paths too."""
    return [f"interpreter.{key}" for key in interpreters()]


def exists(path: str) -> bool:
    """Return whether a file or folder with this name exists."""
    try:
        return os.path.lexists(path)
    except ValueError:
        return False


def _each(values: str) -> str:
    """Return paths between commas, each of them quoted."""
    return ",".join(part if _is_quoted(part) else _quote(part) for part in _parts(values))


def _parts(values: str) -> list[str]:
    """Split a text at commas into paths. A comma does not split if a path with this comma exists."""
    pieces = _split(values)
    parts: list[str] = []
    while pieces:
        size = next((n for n in range(len(pieces), 1, -1) if exists(",".join(pieces[:n]))), 1)
        parts.append(",".join(pieces[:size]))
        pieces = pieces[size:]
    return parts


def _split(values: str) -> list[str]:
    """Split at commas outside of quotes that enclose a whole piece. Drop an empty piece at the end."""
    pieces = re.findall(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[^,]*)(?:,|$)""", values)
    return pieces[:-1]


def _is_quoted(value: str) -> bool:
    return re.fullmatch(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", value, re.DOTALL) is not None


def _quote(path: str) -> str:
    if INTERPOLATION in path and not exists(path):
        return path
    from hydra.core.override_parser.types import Quote, QuotedString

    # OmegaConf replaces ${...} also inside quotes, unless an odd number of backslashes precedes it.
    typed = re.sub(r"(\\*)\$\{", lambda matched: f"{matched.group(1) * 2}\\{INTERPOLATION}", _at_home(path))
    return str(QuotedString(typed, Quote.double).with_quotes())


def _at_home(path: str) -> str:
    """Replace a leading ~ by the home folder, because shells do not replace it after key=."""
    return path if not path.startswith("~") or exists(path) else os.path.expanduser(path)
