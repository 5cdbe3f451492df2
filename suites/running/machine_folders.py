"""Remove the folders of this machine from the texts of a record, because records may be published.

Folders with a role in a run are replaced by its name: <cache>, <results>, <model.path>, <model.tokenizer>, <suite>,
<cwd>, <home> or <tmp>. Any other absolute path is shortened to <folder>/ and its last name, or to <folder>/ and the
part from site-packages on. Names that begin with a slash but are not paths stay unchanged, for example names of ONNX
nodes.
"""

from __future__ import annotations

import os
import pwd
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TypeVar

from backends.json_part import Part
from suites.asking.request import Request
from suites.records.record import Record
from suites.root import ROOT

P = TypeVar("P", bound=Part)

PATH = re.compile(r"(?<![\w.:/<>~-])/(?:[^\s/'\"`:;,=()\[\]{}<>|*?]+/)+[^\s/'\"`:;,=()\[\]{}<>|*?]*")
"""Matches an absolute path with at least one folder, but not a URL and not the end of a relative path."""

LIBRARIES = re.compile(r".*/((?:site|dist)-packages/.*)")


def without_folders(record: Record, request: Request) -> Record:
    """Return the record without folders in its command, reason, log, artifacts, facts, checks and processes."""
    replacements = folder_replacements(request)
    names = ("command", "reason", "log_tail", "artifacts", "facts", "checks", "processes")
    return _replaced(record, {name: _cleaned(getattr(record, name), replacements) for name in names})


def _replaced(part: P, values: Mapping[str, object]) -> P:
    """Return a part with other values of some fields."""
    change: Callable[..., P] = replace
    return change(part, **values)


def folder_replacements(request: Request) -> dict[str, str]:
    """Return the replacement for each folder with a role in the run, by its path."""
    model = request.model
    folders_by_role = {
        "tmp": [tempfile.gettempdir(), "/tmp"],
        "home": [os.environ.get("HOME", ""), _home()],
        "cwd": [_cwd()],
        "suite": [str(ROOT)],
        "model.path": [model.path if model else ""],
        "model.tokenizer": [model.tokenizer if model else ""],
        "results": [str(request.results)],
        "cache": [str(request.cache)],
    }
    replacements: dict[str, str] = {}
    for name, folders in folders_by_role.items():
        for folder in filter(None, folders):
            # Both as it was given and with symbolic links resolved.
            for path in (os.path.normpath(folder), os.path.realpath(folder)):
                if os.path.isabs(path) and path != "/":
                    replacements[path] = f"<{name}>"
    return replacements


def clean(text: str, replacements: Mapping[str, str]) -> str:
    """Return `text` without folders. `replacements` has a text for each folder; longest folders are replaced first."""
    for folder in sorted(replacements, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w-]|\.\w)", replacements[folder], text)
    return PATH.sub(_shortened, text)


def _shortened(match: re.Match[str]) -> str:
    path = match[0]
    first = path.split("/")[1]
    if not os.path.isdir(f"/{first}"):
        return path
    if library := LIBRARIES.fullmatch(path):
        return f"<folder>/{library[1]}"
    return f"<folder>/{path.rstrip('/').rpartition('/')[2]}"


def _cleaned(value: object, replacements: Mapping[str, str]) -> object:
    if isinstance(value, Part):
        parts = {item.name: getattr(value, item.name) for item in fields(value)}
        return _replaced(value, {name: _cleaned(part, replacements) for name, part in parts.items()})
    if isinstance(value, str):
        return clean(value, replacements)
    if isinstance(value, Mapping):
        return {name: _cleaned(inner, replacements) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner, replacements) for inner in value]
    if isinstance(value, tuple):
        return tuple(_cleaned(inner, replacements) for inner in value)
    return value


def _home() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return ""


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
