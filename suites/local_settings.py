"""Interpreters of this machine, from a file inference-suites.yaml in the current folder or in the user's settings.

    interpreter:
      trt: /path/to/python

The first of these files counts: inference-suites.yaml in the current folder, the same in
$XDG_CONFIG_HOME/inference-suites (by default ~/.config/inference-suites), and conf/interpreter/local.yaml in a checkout
of a former version, which has the keys below `interpreter` alone. Hydra gets them as the choice interpreter=local.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from suites.checks import Refused, decoded, did_you_mean, is_file, shortened
from suites.config import InterpreterConfig, RunConfig
from suites.user_folders import settings_folder

FILE = "inference-suites.yaml"
GROUP = "interpreter"
FORMER = Path(__file__).resolve().parent.parent / "conf" / "interpreter" / "local.yaml"


def register() -> None:
    """Make the schema and the interpreters of this machine known to Hydra.

    Raises:
        Refused: the file of interpreters cannot be used.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=RunConfig)
    store.repo.get(GROUP, {}).pop("local.yaml", None)
    if found := interpreters():
        store.store(group=GROUP, name="local", node=found)


def interpreters() -> dict[str, str]:
    """Paths of interpreters by name; empty if there is no file.

    Raises:
        Refused: the file cannot be used; the message names it.
    """
    path = settings_file()
    if path is None:
        return {}
    settings = _read(path)
    if path != FORMER:
        _check_keys(path, settings, [GROUP])
        settings = settings.get(GROUP) or {}
    if not isinstance(settings, Mapping):
        raise Refused(f"{path}: {GROUP} must be a mapping, e.g. {GROUP}: {{trt: /path/to/python}}")
    _check_keys(path, settings, [item.name for item in fields(InterpreterConfig)], f"{GROUP}.")
    given = {name: value for name, value in settings.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, str):
            raise Refused(f"{path}: {GROUP}.{name} must be the path of a Python")
    return {name: _absolute(path, value) for name, value in given.items()}


def settings_file() -> Path | None:
    """The file that counts; None if there is none. A file in the current folder that another user can have written is
    passed over with a line, because it names programs to run."""
    here = Path(FILE)
    if is_file(here):
        if not (reason := _distrust(here)):
            return here
        print(f"{here.absolute()} is not read: {reason}", file=sys.stderr)
    return next((path for path in (settings_folder() / FILE, FORMER) if is_file(path)), None)


def _distrust(path: Path) -> str:
    """Why a file can have been written by another user; empty if it cannot."""
    with contextlib.suppress(OSError):
        for found in (os.stat(path), os.lstat(path)):
            if found.st_uid not in (0, os.geteuid()):
                return f"it belongs to another user (uid {found.st_uid})"
            if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode):
                return "every user can write it"
    return ""


def _read(path: Path) -> Mapping[str, Any]:
    """
    Raises:
        Refused: the file cannot be read, or is no mapping in YAML.
    """
    from yaml import YAMLError, safe_load  # type: ignore[import-untyped]  # a dependency of OmegaConf

    try:
        found = safe_load(decoded(str(path), path.read_bytes()))
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); correct its permissions or remove it") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise Refused(f"{path}{line}: it is not YAML: {problem}") from None
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise Refused(f"{path} must be a mapping, e.g. {GROUP}: {{trt: /path/to/python}}")
    return found


def _check_keys(path: Path, settings: Mapping[Any, Any], known: list[str], prefix: str = "") -> None:
    for key in settings:
        if key not in known:
            hint = did_you_mean(str(key), known, prefix)
            raise Refused(f"{path}: there is no key {prefix}{shortened(str(key))}; {hint}choices: {', '.join(known)}")


def _absolute(path: Path, value: str) -> str:
    """A path relative to the folder of its file, with the home folder for ~. A bare name stays as it is."""
    value = os.path.expanduser(value)
    return os.path.join(path.absolute().parent, value) if "/" in value else value
