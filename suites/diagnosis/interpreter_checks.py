"""Checks of the configured interpreters: each is started with a time limit and reports its version."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from backends.finding import MISSING, OK, WARNING, Finding
from backends.json_codec import NotThisType, from_json
from suites.asking.interpreters import interpreter_path
from suites.diagnosis.query_interpreter import NoAnswer, Query
from suites.schema.refusals import Refused
from suites.text import one_line

LEAST = (3, 10)
"""Oldest release of CPython that a worker can use."""

PROGRAM = """
import json, platform, sys
from importlib import metadata
try:
    numpy = metadata.version("numpy")
except Exception:
    numpy = ""
print(json.dumps({"python": platform.python_version(), "version": list(sys.version_info[:2]), "numpy": numpy}))
"""
"""Program that an interpreter runs. It needs the standard library only."""


@dataclass(frozen=True)
class Python:
    """An interpreter of the configuration.

    Attributes:
        key: its key in the group `interpreter`.
        path: path of the program; "" if no worker can use it.
        finding: the check.
    """

    key: str
    path: str
    finding: Finding


def check_interpreters(configured: Mapping[str, str], query: Query) -> list[Python]:
    """Return the check of each interpreter.

    Args:
        configured: path by key, with the key "main" first. An empty path is that of "main", and for "main" the Python
            of this command.
    """
    checked: dict[str, Python] = {}
    main = configured.get("main") or sys.executable
    for key, given in configured.items():
        name = f"interpreter.{key}"
        if key != "main" and not given:
            same = checked["main"]
            finding = Finding(name, OK, "not set, the same as interpreter.main")
            checked[key] = Python(key, same.path, finding)
            continue
        checked[key] = _checked(key, given or main, query)
    return list(checked.values())


def _checked(key: str, given: str, query: Query) -> Python:
    name = f"interpreter.{key}"
    fix = f"python -m suites.doctor {name}=PATH"
    try:
        path = interpreter_path(name, given)
    except Refused as reason:
        return Python(key, "", Finding(name, MISSING, one_line(str(reason)), fix))
    try:
        facts = query(path, ["-c", PROGRAM])
        version = from_json(tuple[int, ...], facts["version"], "version")
        python, numpy = str(facts["python"]), str(facts["numpy"])
    except NoAnswer as reason:
        return Python(key, "", Finding(name, MISSING, f"{path}: {reason}", fix))
    except (KeyError, NotThisType):
        return Python(key, "", Finding(name, MISSING, f"{path} is not a Python", fix))
    if version < LEAST:
        text = f"{path}: Python {python} is too old; workers need {'.'.join(map(str, LEAST))} or newer"
        return Python(key, "", Finding(name, MISSING, text, fix))
    if not numpy:
        text = f"{path}: Python {python} has no numpy"
        return Python(key, "", Finding(name, MISSING, text, f"{path} -m pip install numpy"))
    return Python(key, path, Finding(name, OK, f"{path}, Python {python}, numpy {numpy}"))


def settings_finding(error: Refused) -> Finding:
    """Return the finding for a file inference-suites.yaml that is not valid."""
    return Finding(
        "settings file", WARNING, f"{error}; it is not used", "python -m suites.doctor interpreter.main=PATH"
    )
