"""Keys of the configuration with their help, and a list of all keys of a configuration.

Needs CPython 3.10 and the standard library only, because descriptions of backends use it in every worker.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import Enum, EnumMeta
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")

TYPE_NAMES: dict[object, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Any: "any value",
}


def key(default: T, text: str = "", *, added_later: bool = False, paths: bool = False, in_help: bool = False) -> T:
    """Make a field of a configuration dataclass with its default value and its help text.

    Args:
        text: help text; empty for a field that takes the value of another key.
        added_later: whether a cell leaves the option out at its default, so that the ids of older cells stay the same.
        paths: whether the values are paths; the command line then quotes them for Hydra.
        in_help: whether `--help` shows an option of a backend. The reference shows all.
    """
    metadata = {"help": text, "added_later": added_later, "paths": paths, "in_help": in_help}
    if isinstance(default, list | dict):
        made_field: T = field(default_factory=lambda: deepcopy(default), metadata=metadata)
    else:
        made_field = field(default=default, metadata=metadata)
    return made_field


@dataclass(frozen=True)
class Key:
    """One key of the configuration.

    Attributes:
        name: Name with its group, for example "suite.seconds".
        type: Type in words, or the choices of an enumeration.
        default: Default as typed on the command line.
        text: Help text.
        in_help: Whether `--help` shows the key.
    """

    name: str
    type: str
    default: str
    text: str
    in_help: bool = False


def keys_of(schema: type[DataclassInstance], prefix: str = "") -> Iterator[Key]:
    """Yield all keys of a configuration dataclass and of the dataclasses in it, in the order of the source."""
    types = get_type_hints(schema)
    for item in fields(schema):
        kind = types[item.name]
        if is_dataclass(kind) and isinstance(kind, type):
            yield from keys_of(kind, f"{prefix}{item.name}.")
        else:
            text = str(item.metadata.get("help", ""))
            in_help = bool(item.metadata.get("in_help"))
            yield Key(prefix + item.name, _type_name(kind), _typed(_default_of(item)), text, in_help)


def _default_of(item: Field[object]) -> object:
    return item.default if item.default_factory is MISSING else item.default_factory()


def _type_name(kind: object) -> str:
    if isinstance(kind, EnumMeta):
        choices: list[object] = list(kind)
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


def _typed(value: object) -> str:
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


def to_json_types(value: object) -> object:
    """Convert enums and containers of enums to JSON types. An enum becomes its value if it is a text, else its name."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, Mapping):
        return {key: to_json_types(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_types(item) for item in value]
    return value


def cell_mapping(options: DataclassInstance) -> dict[str, object]:
    """Return the fields of a dataclass as JSON types, without fields that were added later and have their default."""
    return {
        item.name: to_json_types(getattr(options, item.name))
        for item in fields(options)
        if not item.metadata.get("added_later") or getattr(options, item.name) != _default_of(item)
    }
