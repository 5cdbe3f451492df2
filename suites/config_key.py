"""Keys of the configuration with their help, and all keys of a configuration as a list."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum, EnumMeta
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

TYPE_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any value"}


def key(default: T, text: str) -> T:
    """A field of a configuration dataclass with its default value and its help text."""
    metadata = {"help": text}
    if isinstance(default, list | dict):
        found: Any = field(default_factory=lambda: deepcopy(default), metadata=metadata)
    else:
        found = field(default=default, metadata=metadata)
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        name: with its group, for example "suite.seconds".
        type: in words; the choices where the key takes one of few.
        default: as it would be typed.
        text: what the key does.
    """

    name: str
    type: str
    default: str
    text: str


def keys_of(schema: type[Any], prefix: str = "") -> Iterator[Key]:
    """All keys of a configuration dataclass and of the dataclasses in it, in the order of the source."""
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
        members: list[Any] = list(kind)
        return ", ".join(_typed(member) for member in members)
    arguments = get_args(kind)
    if get_origin(kind) is list:
        return f"list of {_plural(_type_name(arguments[0]))}"
    if get_origin(kind) is dict:
        return f"mapping to {_type_name(arguments[1])}"
    return TYPE_NAMES[kind]


def _plural(name: str) -> str:
    """Of the name of a type: "list of texts" becomes "lists of texts"; choices stay as they are."""
    first, of, rest = name.partition(" of ")
    return name if "," in name else f"{first}s{of}{rest}"


def _typed(value: Any) -> str:
    """A value as it is typed on the command line; of an enum its name, which Hydra reads."""
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_typed(one) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_typed(one)}" for name, one in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)
