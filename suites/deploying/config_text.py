"""Messages of protobuf as text, for config.pbtxt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Symbol:
    """A value of an enum, which is written without quotes."""

    name: str


Value = str | int | bool | Symbol | Mapping[str, object] | Sequence[object]
"""A scalar, a message as fields by name, or a repeated field. Empty repeated fields are left out."""


def text_of(message: Mapping[str, object]) -> str:
    """Return a message in protobuf's text format, with a line for each field.

    Raises:
        TypeError: a value has another type than `Value`.
    """
    return "".join(f"{line}\n" for line in _lines(message, ""))


def map_entries(values: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the entries of a map field."""
    return [{"key": name, "value": value} for name, value in values.items()]


def _lines(message: Mapping[str, object], indent: str) -> list[str]:
    lines = []
    for name, value in message.items():
        for item in value if isinstance(value, Sequence) and not isinstance(value, str) else [value]:
            if isinstance(item, Mapping):
                lines += [f"{indent}{name} {{", *_lines(item, f"{indent}  "), f"{indent}}}"]
            else:
                lines.append(f"{indent}{name}: {_scalar(item)}")
    return lines


def _scalar(value: object) -> str:
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return f'"{value.translate(ESCAPES)}"'
    raise TypeError(f"{type(value).__name__} is no scalar of a config.pbtxt")


ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
