"""Interpreters of this machine, from the file inference-suites.yaml in the current folder or in the user's settings.

    interpreter:
      trt: /path/to/python

The first file that exists counts: inference-suites.yaml in the current folder, inference-suites.yaml in
$XDG_CONFIG_HOME/inference-suites (by default ~/.config/inference-suites), and conf/interpreter/local.yaml in a checkout
of an earlier version, which contains only the keys below `interpreter`. Hydra gets these keys as the choice
interpreter=local.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

from suites.asking.user_folders import settings_folder
from suites.cli.groups import SUITE_GROUP, suite_nodes
from suites.root import ROOT
from suites.schema.refusals import Refused, decoded, did_you_mean, is_file, shortened
from suites.schema.run_schema import interpreter_keys, run_schema

FILE = "inference-suites.yaml"
GROUP = "interpreter"
FORMER = ROOT / "conf" / "interpreter" / "local.yaml"


def register() -> None:
    """Register the schema, the suites and the interpreters of this machine with Hydra.

    Raises:
        Refused: The file of interpreters is invalid.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=run_schema())
    for name, settings in suite_nodes().items():
        store.store(group=SUITE_GROUP, name=name, node=settings)
    store.repo.get(GROUP, {}).pop("local.yaml", None)
    if local := interpreters():
        store.store(group=GROUP, name="local", node=local)


def interpreters() -> dict[str, str]:
    """Return the paths of interpreters by name; {} if there is no file.

    Raises:
        Refused: The file is invalid. The message names the file.
    """
    path = settings_file()
    if path is None:
        return {}
    content = _read(path)
    if path != FORMER:
        _check_keys(path, content, [GROUP])
    settings = content if path == FORMER else content.get(GROUP) or {}
    if not isinstance(settings, Mapping):
        raise Refused(f"{path}: {GROUP} must be a mapping, e.g. {GROUP}: {{trt: /path/to/python}}")
    _check_keys(path, settings, interpreter_keys(), f"{GROUP}.")
    paths = {}
    for name, value in settings.items():
        if isinstance(value, str):
            paths[str(name)] = _absolute(path, value)
        elif value is not None:
            raise Refused(f"{path}: {GROUP}.{name} must be the path of a Python program")
    return paths


def settings_file() -> Path | None:
    """Return the settings file that counts, or None.

    A file in the current folder names programs to run. If another user could have written it, the file is ignored and a
    line says so.
    """
    here = Path(FILE)
    if is_file(here):
        if not (reason := _distrust(here)):
            return here
        print(f"{here.absolute()} is ignored: {reason}", file=sys.stderr)
    return next((path for path in (settings_folder() / FILE, FORMER) if is_file(path)), None)


def _distrust(path: Path) -> str:
    """Return why another user could have written a file; "" if only this user or root could."""
    with contextlib.suppress(OSError):
        for status in (os.stat(path), os.lstat(path)):
            if status.st_uid not in (0, os.geteuid()):
                return f"it belongs to another user (uid {status.st_uid})"
            if status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode):
                return "every user can write it"
    return ""


def _read(path: Path) -> Mapping[object, object]:
    """Read a mapping from a YAML file.

    Raises:
        Refused: The file cannot be read, or is not a mapping in YAML.
    """
    from yaml import YAMLError, safe_load  # type: ignore[import-untyped]  # a dependency of OmegaConf

    try:
        settings = safe_load(decoded(str(path), path.read_bytes()))
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); correct its permissions or remove the file") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise Refused(f"{path}{line}: the file is not valid YAML: {problem}") from None
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise Refused(f"{path} must be a mapping, e.g. {GROUP}: {{trt: /path/to/python}}")
    return settings


def _check_keys(path: Path, settings: Mapping[object, object], allowed: list[str], prefix: str = "") -> None:
    for key in settings:
        if key not in allowed:
            hint = did_you_mean(str(key), allowed, prefix)
            raise Refused(f"{path}: there is no key {prefix}{shortened(str(key))}; {hint}choices: {', '.join(allowed)}")


def _absolute(path: Path, value: str) -> str:
    """Return an absolute path; relative paths start at the folder of the file. Bare names do not change."""
    value = os.path.expanduser(value)
    return os.path.join(path.absolute().parent, value) if "/" in value else value
