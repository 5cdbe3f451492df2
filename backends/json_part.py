"""Base of dataclasses that are parts of stored JSON: they keep the fields that they do not know.

A file of a later version, or of another project, may have more fields. `from_json` puts them into `unknown`, and
`to_json` writes them back. Needs CPython 3.10 and the standard library alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

T = TypeVar("T")

OMITTED = "omitted"
"""Key in the metadata of a field that is not written while it has its default."""


def optional(default: T) -> T:
    """Return a field with this default. It is not written to JSON while it has its default."""
    specified: T = field(default=default, metadata={OMITTED: True})
    return specified


def optional_mapping() -> Mapping[str, T]:
    """Return a field for a mapping. It is not written to JSON while it is empty."""
    factory: Callable[[], dict[str, T]] = dict
    specified: Mapping[str, T] = field(default_factory=factory, metadata={OMITTED: True})
    return specified


@dataclass(frozen=True)
class Part:
    """Object in a JSON file.

    Attributes:
        json_names: names in JSON of fields that have another name in Python.
        json_flat: fields with a Part (or None) whose own fields are directly in the JSON object of this part.
        json_items: fields with a mapping whose items are directly in the JSON object of this part. The value is a
            regular expression for the names of the items.
        unknown: values of the fields that this class does not have, by name.
    """

    json_names: ClassVar[Mapping[str, str]] = {}
    json_flat: ClassVar[Mapping[str, type[Part]]] = {}
    json_items: ClassVar[Mapping[str, str]] = {}

    unknown: Mapping[str, object] = field(default_factory=dict, kw_only=True, repr=False)

    @classmethod
    def from_layout(cls, data: Mapping[str, object]) -> Mapping[str, object]:
        """Return the values by name in JSON, each for one field, from the JSON object."""
        result = dict(data)
        for name, kind in cls.json_flat.items():
            inner = {key: result.pop(key) for key in json_fields(kind) if key in result}
            result |= {name: inner} if inner else {}
        for name, pattern in cls.json_items.items():
            others = result.keys() - json_fields(cls).keys() | {name}
            items = {key: value for key, value in result.items() if key in others and re.fullmatch(pattern, key)}
            result = {key: value for key, value in result.items() if key not in items}
            result |= {name: items} if items else {}
        return result

    def to_layout(self, data: dict[str, object]) -> dict[str, object]:
        """Return the JSON object, from the values by name in JSON. This undoes `from_layout`."""
        for name in (*self.json_flat, *self.json_items):
            inner = data.pop(name, None)
            data |= inner if isinstance(inner, dict) else {}
        return data


_fields: dict[type[Part], Mapping[str, dataclasses.Field[object]]] = {}


def json_fields(kind: type[Part]) -> Mapping[str, dataclasses.Field[object]]:
    """Return the fields of a part by their name in JSON, without `unknown`."""
    if kind not in _fields:
        _fields[kind] = {
            kind.json_names.get(item.name, item.name): item
            for item in dataclasses.fields(kind)
            if item.init and item.name != "unknown"
        }
    return _fields[kind]


def unknown_fields(value: object, place: str = "") -> list[str]:
    """Return the places of the unknown fields in a value and in its parts, each once, as in `checks[].colour`."""
    found: dict[str, None] = {}
    _collect(value, place, found)
    return list(found)


def _collect(value: object, place: str, found: dict[str, None]) -> None:
    if isinstance(value, Part):
        found |= dict.fromkeys(_inside(place, name) for name in value.unknown)
        for name, item in json_fields(type(value)).items():
            direct = item.name in value.json_flat or item.name in value.json_items
            _collect(getattr(value, item.name), place if direct else _inside(place, name), found)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            _collect(inner, _inside(place, str(name)), found)
    elif isinstance(value, (tuple, list)) and value and isinstance(value[0], Part):
        for inner in value:
            _collect(inner, f"{place}[]", found)


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
