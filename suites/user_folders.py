"""Folders of this user, by the XDG Base Directory Specification, and the defaults of results= and cache=.

The defaults are folders in the current one. Where these cannot be written, as in a read-only folder, results go to
$XDG_DATA_HOME/inference-suites/results and the cache is $XDG_CACHE_HOME/inference-suites.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

NAME = "inference-suites"

DEFAULTS = {"results": "results/runs", "cache": ".cache"}
"""By key, the folder in the current one. suites/config.py has the same."""

_said: set[str] = set()
"""Lines that this process has printed: a sweep prints each once."""


def home_of(variable: str, below_home: str) -> Path:
    """This project's folder below the folder that a variable such as XDG_DATA_HOME names.

    Args:
        below_home: the folder in the home folder that counts if the variable is unset or, against the specification, a
            relative path.
    """
    given = os.environ.get(variable, "")
    base = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~"), below_home)
    return base / NAME


def settings_folder() -> Path:
    """Where this user's settings are."""
    return home_of("XDG_CONFIG_HOME", ".config")


def default_folder(key: str) -> str:
    """The default of results= or cache=: in the current folder, or this user's if that cannot be written. Prints one
    line if it is this user's."""
    here = DEFAULTS[key]
    if can_be_written(here):
        return here
    own = home_of("XDG_CACHE_HOME", ".cache")
    if key == "results":
        own = home_of("XDG_DATA_HOME", ".local/share") / "results"
    if not (own.is_absolute() and can_be_written(own)):
        return here  # whoever writes there refuses it with the reason
    line = f"{here} cannot be written here: {key}={own} is used"
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)
    return str(own)


def chosen_folder(key: str, given: str) -> str:
    """The folder that `given`, the value of results= or cache=, stands for."""
    return default_folder(key) if given == DEFAULTS[key] else given


def can_be_written(path: str | Path) -> bool:
    """Whether a folder can be written, or be made if it is missing."""
    folder = os.path.abspath(path)
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
