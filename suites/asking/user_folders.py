"""Folders of this user, by the XDG Base Directory Specification, and the defaults of results= and cache=.

The defaults are folders in the current folder. If the current folder is read-only, results are written to
$XDG_DATA_HOME/inference-suites/results and the cache is $XDG_CACHE_HOME/inference-suites.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from suites.schema.config import RunConfig

NAME = "inference-suites"

DEFAULTS = {"results": RunConfig.results, "cache": RunConfig.cache}
"""Default folder of each key, in the current folder."""

_said: set[str] = set()
"""Lines that this process has printed. A sweep prints each line once."""


def home_of(variable: str, below_home: str) -> Path:
    """Return this project's folder in the folder of an environment variable such as XDG_DATA_HOME.

    Args:
        variable: Name of the environment variable.
        below_home: Folder in the home folder. It counts if the variable is unset, or is a relative path, which the
            specification forbids.
    """
    value = os.environ.get(variable, "")
    base = Path(value) if os.path.isabs(value) else Path(os.path.expanduser("~"), below_home)
    return base / NAME


def settings_folder() -> Path:
    """Return the folder of this user's settings."""
    return home_of("XDG_CONFIG_HOME", ".config")


def default_folder(key: str) -> str:
    """Return the default of results= or cache=: the folder in the current folder, or this user's folder.

    This user's folder is used if the current folder is read-only. Then one line on standard error says so.
    """
    here = DEFAULTS[key]
    if can_be_written(here):
        return here
    own = home_of("XDG_CACHE_HOME", ".cache")
    if key == "results":
        own = home_of("XDG_DATA_HOME", ".local/share") / "results"
    if not (own.is_absolute() and can_be_written(own)):
        return here  # Writing there raises a refusal with the reason.
    line = f"the current folder is read-only: {key}={own} is used instead of {key}={here}"
    if line not in _said:
        _said.add(line)
        print(line, file=sys.stderr)
    return str(own)


def chosen_folder(key: str, given: str) -> str:
    """Return the folder for the value `given` of results= or cache=."""
    return default_folder(key) if given == DEFAULTS[key] else given


def can_be_written(path: str | Path) -> bool:
    """Return whether a folder is writable, or can be created if it does not exist."""
    folder = os.path.abspath(path)
    while not os.path.lexists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)
