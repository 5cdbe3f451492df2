"""Backends by name, from the folders of this package.

Each subfolder of `backends.__path__` is a backend folder with a file `description.py`, except the folders in
`SHARED_FOLDERS`. A folder `backends/NAME_/` in any folder on PYTHONPATH is found too. Reading the descriptions needs
CPython 3.10 and the standard library only.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import backends
from backends.description import BackendDescription, Interpreter
from backends.value_checks import Refused

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from backends.base import Backend

SHARED_FOLDERS = ("model", "inputs", "onnx_", "int8_learning", "served_model")
"""Folders with code that several backends share. They have no description."""


@cache
def descriptions() -> Mapping[str, BackendDescription]:
    """Return the description of each backend by its name, sorted by name.

    Raises:
        Refused: a folder has no description, a description cannot be read, or two descriptions contradict each other.
            The message names the file.
    """
    by_name: dict[str, BackendDescription] = {}
    files: dict[str, Path] = {}
    groups: dict[str, type[DataclassInstance]] = {}
    for file in _description_files():
        for description in _backends_in(file):
            name = description.name
            if name in by_name:
                raise Refused(f"{file}: backend {name} is described in {files[name]} too; give it another name")
            by_name[name], files[name] = description, file
            _check_options(file, description, groups)
    return dict(sorted(by_name.items()))


def describe(name: str) -> BackendDescription:
    """Return the description of a backend.

    Raises:
        Refused: there is no such backend.
    """
    if name not in descriptions():
        raise Refused(f"there is no backend={name}; choices: {', '.join(descriptions())}")
    return descriptions()[name]


def option_groups() -> dict[str, type[DataclassInstance]]:
    """Return the dataclasses of all groups of options on the command line, by name of the group."""
    return {name: group for description in descriptions().values() for name, group in description.groups.items()}


def interpreters() -> dict[str, Interpreter]:
    """Return the interpreters that backends use, by their key."""
    return {description.interpreter.key: description.interpreter for description in descriptions().values()}


def load_backend(name: str) -> Backend:
    """Return the backend `name`. Import its module only; the module imports the vendor's library at first use."""
    module, _, attribute = describe(name).factory.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError) as error:
        raise Refused(f"backend={name}: its factory {module}:{attribute} cannot be imported: {error}") from error
    return backend


def _description_files() -> Iterator[Path]:
    """Yield the path of description.py of each backend folder, in the order of the folders' names."""
    folders = [folder for root in backends.__path__ for folder in Path(root).iterdir() if folder.is_dir()]
    for folder in sorted(folders, key=lambda folder: folder.name):
        # Removed modules leave a folder with __pycache__ behind.
        if folder.name in SHARED_FOLDERS or not any(folder.glob("*.py")):
            continue
        file = folder / "description.py"
        if not file.is_file():
            raise Refused(f"{folder} has no description.py; describe its backends there, or move the folder away")
        yield file


def _backends_in(file: Path) -> tuple[BackendDescription, ...]:
    module = _imported(file)
    found = getattr(module, "BACKENDS", None)
    if not isinstance(found, tuple) or not all(isinstance(item, BackendDescription) for item in found):
        raise Refused(f"{file}: BACKENDS must be a tuple of BackendDescription (backends/description.py)")
    return found


def _imported(file: Path) -> ModuleType:
    try:
        module = importlib.import_module(f"backends.{file.parent.name}.description")
    except (Exception, SystemExit) as error:  # The file may be of a third party.
        line = " ".join(str(error).split())
        raise Refused(f"{file} cannot be read: {type(error).__name__}: {line}") from error
    if Path(str(module.__file__)).resolve() != file.resolve():
        raise Refused(f"{file} is hidden by {module.__file__}; give its folder another name")
    return module


def _check_options(file: Path, description: BackendDescription, groups: dict[str, type[DataclassInstance]]) -> None:
    """Check the groups of a backend, and add them to `groups`, the groups of the backends before it."""
    seen: dict[str, str] = {}
    for group, schema in description.groups.items():
        if groups.setdefault(group, schema) is not schema:
            options = {item.name for item in fields(schema)} & {item.name for item in fields(groups[group])}
            twice = ", ".join(f"{group}.{name}" for name in sorted(options)) or f"the group {group}"
            raise Refused(f"{file}: another backend describes {twice} too; give the group another name")
        for item in fields(schema):
            if item.name in seen:
                raise Refused(
                    f"{file}: {group}.{item.name} and {seen[item.name]} are the same option of backend "
                    f"{description.name}; give one of them another name"
                )
            seen[item.name] = f"{group}.{item.name}"
