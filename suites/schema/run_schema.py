"""Schema of the whole configuration: the keys of suites/schema/config.py, the interpreters and options of backends."""

from __future__ import annotations

from dataclasses import field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING

from backends.config_key import key
from backends.registry import interpreters, option_groups
from backends.value_checks import Refused
from suites.schema.config import RunConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@cache
def run_schema() -> type[RunConfig]:
    """Return a subclass of `RunConfig` with the group `interpreter` and the groups of options of all backends.

    Raises:
        Refused: a description of a backend is invalid, or a group of a backend has the name of another key.
    """
    groups = {"interpreter": _interpreter_schema(), **option_groups()}
    if taken := {item.name for item in fields(RunConfig)} & set(groups):
        raise Refused(f"a backend describes the group {min(taken)}, which is a key of the suite; give it another name")
    return make_dataclass(
        "RunConfig",
        [(name, group, field(default_factory=group)) for name, group in groups.items()],
        bases=(RunConfig,),
        namespace={"__doc__": RunConfig.__doc__},
    )


def interpreter_keys() -> list[str]:
    """Return the keys of the group `interpreter`."""
    return ["main", *sorted(set(interpreters()) - {"main"})]


def _interpreter_schema() -> type[DataclassInstance]:
    """Return the dataclass of Python executables. inference-suites.yaml or the user's settings can set them."""
    described = interpreters()
    return make_dataclass(
        "InterpreterConfig",
        [(name, str, key("", described[name].help, in_help=name != "main")) for name in interpreter_keys()],
    )
