"""Typed data as JSON: dataclasses to the types that the json module writes, and back with every type checked.

Jobs, answers and records cross processes and releases this way. Needs CPython 3.10 and the standard library alone,
because workers of any interpreter use it.

Supported types: dataclasses, enums (by name), `Path` (as text), str, int, float, bool, None, `X | None`,
`tuple[X, ...]`, `tuple[X, Y]`, `list[X]`, `Mapping[str, X]`, and `Mapping[K, X]` of a dataclass K (as a list of pairs).
A field of type `object` holds JSON that is passed on as it is. A dataclass that is a `Part` (backends/json_part.py)
also keeps fields that it does not have. A dataclass can choose the types of its fields by the
data: its class method `json_types(data)` returns a type by field name.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Union, cast, get_args, get_origin

from backends.json_part import OMITTED, Part, json_fields

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FieldTypes(Generic[T]):
    """A dataclass of which some fields have other types than it declares; `json_types` can return it."""

    kind: type[T]
    types: Mapping[str, object]


SCALARS = (str, int, float, bool, type(None))
FLOATS = (float, float | None)


class NotThisType(ValueError):
    """JSON data that does not have the type it should have; the message names the place, as in `job.spec.shapes`."""


def to_json(value: object) -> object:
    """Return `value` as dicts, lists, str, int, float, bool and None.

    Raises:
        TypeError: the value has a type that this module does not support.
    """
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, SCALARS):
        return value
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_object(value)
    if isinstance(value, Mapping):
        if any(dataclasses.is_dataclass(name) for name in value):
            return [[to_json(name), to_json(item)] for name, item in value.items()]
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def to_object(value: DataclassInstance) -> dict[str, object]:
    """Return a dataclass as `to_json` does."""
    if isinstance(value, Part):
        return _encode_part(value)
    return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}


def _encode_part(part: Part) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, field in json_fields(type(part)).items():
        value = getattr(part, field.name)
        if OMITTED in field.metadata and value == _default(field):
            continue
        values[name] = to_json(value)
    unknown = {name: to_json(value) for name, value in part.unknown.items()}
    return {**part.to_layout(values), **unknown}


def _default(field: dataclasses.Field[object]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def from_json(kind: type[T] | FieldTypes[T], data: object, place: str = "") -> T:
    """Return `data` as an instance of `kind`. Fields with a default may be absent.

    Args:
        place: name of the data in error messages; by default the name of `kind`.

    Raises:
        NotThisType: a field is missing, unknown or of another type.
    """
    # `_decode` checks the types at run time, from a type that is a value there.
    return cast(T, _decode(kind, data, place or getattr(kind, "__name__", str(kind))))


def _decode(kind: object, data: object, place: str) -> object:
    if isinstance(kind, type) and kind in SCALARS:
        return _scalar(kind, data, place)
    if kind is object or kind is Any:
        return data
    if isinstance(kind, type) and issubclass(kind, Path):
        return Path(str(_scalar(str, data, place)))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if not isinstance(data, str) or data not in kind.__members__:
            raise NotThisType(f"{place}: {data!r} is none of {', '.join(kind.__members__)}")
        return kind[data]
    if isinstance(kind, FieldTypes):
        return _decode_dataclass(kind.kind, data, place, kind.types)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, place)
    origin, arguments = _generic(kind)
    if origin in (Union, types.UnionType):
        return _decode_optional(arguments, data, place)
    if origin is tuple or origin is list:
        return _decode_sequence(origin, arguments, data, place)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(arguments, data, place)
    raise TypeError(f"{place}: {kind} is not supported")


def _scalar(kind: type[T], data: object, place: str) -> T | float:
    if kind is float and type(data) is int:
        return float(data)
    if type(data) is not kind:
        raise NotThisType(f"{place} must be of type {kind.__name__}, not {type(data).__name__}")
    return data


def _decode_dataclass(
    kind: type[DataclassInstance], data: object, place: str, types: Mapping[str, object] | None = None
) -> object:
    if not isinstance(data, Mapping):
        raise NotThisType(f"{place} must be an object, not {type(data).__name__}")
    types_by_name = _types(kind)
    if issubclass(kind, Part):
        return _decode_part(kind, data, place, types_by_name)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    if unknown := set(data) - {field.name for field in fields}:
        raise NotThisType(f"{place}.{min(unknown)} is unknown")
    for field in fields:
        if field.name not in data and field.default is field.default_factory is dataclasses.MISSING:
            raise NotThisType(f"{place}.{field.name} is missing")
    if hasattr(kind, "json_types"):
        types_by_name = {**types_by_name, **kind.json_types(data)}
    types_by_name = {**types_by_name, **(types or {})}
    decoded = {name: _decode(types_by_name[name], value, f"{place}.{name}") for name, value in data.items()}
    make: Callable[..., object] = kind
    return make(**decoded)


def _decode_part(kind: type[Part], data: Mapping[str, object], place: str, types: Mapping[str, object]) -> Part:
    laid_out = kind.from_layout(data)
    if hasattr(kind, "json_types"):
        types = {**types, **kind.json_types(data)}
    fields = json_fields(kind)
    decoded: dict[str, object] = {}
    for name, field in fields.items():
        if name in laid_out:
            where = place if field.name in kind.json_flat or field.name in kind.json_items else f"{place}.{name}"
            value = laid_out[name]
            # A stored number keeps its text, so a whole number stays one also where a float is allowed.
            whole = type(value) is int and types[field.name] in FLOATS
            decoded[field.name] = value if whole else _decode(types[field.name], value, where)
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise NotThisType(f"{place}.{name} is missing")
    if len(decoded) < len(laid_out):
        decoded["unknown"] = {name: value for name, value in laid_out.items() if name not in fields}
    make: Callable[..., Part] = kind
    return make(**decoded)


@cache
def _types(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)


@cache
def _generic(kind: object) -> tuple[type | None, tuple[object, ...]]:
    """Return the origin and the arguments of a type; the functions of `typing` take as long as the decoding."""
    return get_origin(kind), get_args(kind)


def _is_row(kind: object) -> bool:
    """Return whether a type is a tuple of a fixed number of scalars."""
    origin, arguments = _generic(kind)
    return origin is tuple and all(isinstance(argument, type) and argument in SCALARS for argument in arguments)


def _decode_optional(arguments: tuple[object, ...], data: object, place: str) -> object:
    (kind,) = (argument for argument in arguments if argument is not type(None))
    return None if data is None else _decode(kind, data, place)


def _decode_sequence(
    origin: Callable[[Iterable[object]], object], arguments: tuple[object, ...], data: object, place: str
) -> object:
    if not isinstance(data, (list, tuple)):
        raise NotThisType(f"{place} must be a list, not {type(data).__name__}")
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(data) != len(arguments):
            raise NotThisType(f"{place} must have {len(arguments)} items, not {len(data)}")
        pairs = enumerate(zip(arguments, data, strict=True))
        return tuple(_decode(kind, item, f"{place}[{index}]") for index, (kind, item) in pairs)
    kind = arguments[0]
    # Samples and windows of a clock come by the hundred thousand, so those of the right types are not decoded singly.
    if kind in SCALARS and set(map(type, data)) <= {kind}:
        return origin(data)
    if _is_row(kind) and all(type(item) is list and tuple(map(type, item)) == _generic(kind)[1] for item in data):
        return origin(map(tuple, data))
    return origin(_decode(kind, item, f"{place}[{index}]") for index, item in enumerate(data))


def _decode_mapping(arguments: tuple[object, ...], data: object, place: str) -> object:
    names, items = arguments
    if dataclasses.is_dataclass(names):
        if data == {}:
            return {}  # an empty mapping does not show the type of its keys
        if not isinstance(data, (list, tuple)) or any(len(pair) != 2 for pair in data):
            raise NotThisType(f"{place} must be a list of pairs")
        return {_decode(names, name, f"{place} key"): _decode(items, item, f"{place}[{name}]") for name, item in data}
    if not isinstance(data, Mapping):
        raise NotThisType(f"{place} must be an object, not {type(data).__name__}")
    return {_scalar(str, name, place): _decode(items, item, f"{place}.{name}") for name, item in data.items()}
