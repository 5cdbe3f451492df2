"""Check the elements of lists and mappings against the schema. OmegaConf checks scalars but not nested lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from suites.schema.refusals import Refused, shortened

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ELEMENT_NAMES: dict[object, str] = {int: "whole numbers", float: "numbers", str: "names", list: "lists"}


def check_types(config: DataclassInstance) -> None:
    """Check the types of all lists and mappings of a configuration.

    Args:
        config: Dataclass of suites/schema/config.py with values from Hydra.

    Raises:
        Refused: An element of a list or a mapping does not have the type of the schema, or a group is missing.
    """
    for key, kind, value in _leaves(config, ""):
        if get_origin(kind) in (list, dict) and not _fits(value, kind):
            container = "a list" if get_origin(kind) is list else "a mapping"
            element = get_args(kind)[-1]
            inner = f" of {ELEMENT_NAMES[get_args(element)[0]]}" if get_origin(element) is list else ""
            element_name = ELEMENT_NAMES.get(get_origin(element) or element, "values")
            raise Refused(f"{key}={shortened(str(value))} must be {container} of {element_name}{inner}")


def _leaves(config: DataclassInstance, prefix: str) -> Iterator[tuple[str, object, object]]:
    types = get_type_hints(type(config))
    for item in fields(config):
        value, kind = getattr(config, item.name), types[item.name]
        if is_dataclass(kind):
            if not is_dataclass(value) or isinstance(value, type):
                raise Refused(f"{prefix}{item.name}={value} is not a choice of this group; --help lists the choices")
            yield from _leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, kind, value


def _fits(value: object, kind: object) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is list:
        return isinstance(value, list) and all(_fits(element, inner[0]) for element in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(element, inner[1]) for element in value.values())
    if kind is Any:
        return True
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return isinstance(value, kind)
    return isinstance(kind, type) and isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
