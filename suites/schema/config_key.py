"""Keys of the configuration with their help, and a list of all keys of a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum, EnumMeta
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

TYPE_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any value"}


def key(default: T, text: str) -> T:
    """Make a field of a configuration dataclass with its default value and its help text."""
    metadata = {"help": text}
    if isinstance(default, list | dict):
        made_field: Any = field(default_factory=lambda: deepcopy(default), metadata=metadata)
    else:
        made_field = field(default=default, metadata=metadata)
    return made_field  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        name: Name with its group, for example "suite.seconds".
        type: Type in words, or the choices of an enumeration.
        default: Default as typed on the command line.
        text: Help text.
    """

    name: str
    type: str
    default: str
    text: str


def keys_of(schema: type[Any], prefix: str = "") -> Iterator[Key]:
    """Yield all keys of a configuration dataclass and of the dataclasses in it, in the order of the source."""
    types = get_type_hints(schema)
    for item in fields(schema):
        kind = types[item.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from keys_of(kind, f"{prefix}{item.name}.")
        else:
            text = str(item.metadata.get("help", ""))
            yield Key(prefix + item.name, _type_name(kind), _typed(_default_of(item)), text)


def _default_of(item: Field[Any]) -> Any:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _type_name(kind: Any) -> str:
    if isinstance(kind, EnumMeta):
        choices: list[Any] = list(kind)
        return ", ".join(_typed(member) for member in choices)
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return f"list of {_plural(_type_name(arguments[0]))}"
    if get_origin(kind) is dict:
        return f"mapping to {_type_name(arguments[1])}"
    return TYPE_NAMES[kind]


def _plural(name: str) -> str:
    """Return the plural of the name of a type: "list of texts" becomes "lists of texts". Choices do not change."""
    first, of, rest = name.partition(" of ")
    return name if "," in name else f"{first}s{of}{rest}"


def _typed(value: Any) -> str:
    """Return a value as typed on the command line. An enum is typed as its name."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_typed(element) for element in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_typed(element)}" for name, element in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
