"""Checks of JSON values: types, required keys and names that become paths.

A check takes a value and its place in a record, and raises `BadRecord` with that place.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from itertools import chain

Check = Callable[[object, str], None]

MACHINE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
"""Name of a machine, which is also the name of its folder."""

WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
"""Names of suites, backends and precisions, which are parts of file names."""

LARGEST_NUMBER = 1e18
"""Times in nanoseconds are below this limit, which is about 30 years."""


class BadRecord(ValueError):
    """A file is not a record that this version can use; the message says why."""


def is_a(expected: str, test: Callable[[object], bool]) -> Check:
    def check(value: object, where: str) -> None:
        if not test(value):
            raise BadRecord(f"{where} is not {expected}")

    return check


def each(item: Check, least: int = 0) -> Check:
    """Return a check of a list of at least `least` items, which all pass `item`."""

    def check(value: object, where: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            raise BadRecord(f"{where} is not a list{f' of at least {least}' if least else ''}")
        for index, element in enumerate(value):
            item(element, f"{where}[{index}]")

    return check


def values(item: Check) -> Check:
    """Return a check of an object whose values all pass `item`."""

    def check(value: object, where: str) -> None:
        for key, element in object_of(value, where).items():
            item(element, f"{where}.{key}")

    return check


def fields(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """Return a check of an object with required and optional keys. Other keys are ignored."""

    def check(value: object, where: str) -> None:
        found = object_of(value, where)
        for key, item in required.items():
            if key not in found:
                raise BadRecord(f"{_at(where, key)} is missing")
            item(found[key], _at(where, key))
        for key, item in (optional or {}).items():
            if key in found:
                item(found[key], _at(where, key))

    return check


def object_of(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadRecord(f"{where} is not an object")
    return value


def _at(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _numbers(value: object, least: float) -> bool:
    """Return whether `value` is a list of numbers in range."""
    # Only built-in functions loop over the list, because it can be long.
    if not isinstance(value, list) or not {*map(type, value)} <= {int, float}:
        return False
    return not value or (min(value) >= least and max(value) < LARGEST_NUMBER and not any(map(math.isnan, value)))


def _triples(value: object) -> bool:
    if not isinstance(value, list) or not all(isinstance(triple, list) and len(triple) == 3 for triple in value):
        return False
    flat = list(chain.from_iterable(value))
    return {*map(type, flat)} <= {bool} or _numbers(flat, -LARGEST_NUMBER)


mapping = is_a("an object", lambda value: isinstance(value, dict))
text = is_a("a text", lambda value: isinstance(value, str))
flag = is_a("true or false", lambda value: isinstance(value, bool))
number = is_a("a number", lambda value: type(value) in (int, float))
whole = is_a("a whole number", lambda value: type(value) is int and 0 <= value < LARGEST_NUMBER)
positive = is_a("a positive whole number", lambda value: type(value) is int and 0 < value < 1 << 31)
word = is_a("a plain name", lambda value: isinstance(value, str) and bool(WORD.fullmatch(value)))
machine = is_a("a machine's name", lambda value: isinstance(value, str) and bool(MACHINE_NAME.fullmatch(value)))
times = is_a("a list of times", lambda value: _numbers(value, 0))
numbers = is_a("a list of numbers", lambda value: _numbers(value, -LARGEST_NUMBER))
pair = is_a(
    "a batch and a sequence length",
    lambda value: (
        isinstance(value, list) and len(value) == 2 and all(type(n) is int and 0 < n < 1 << 31 for n in value)
    ),
)
triples = is_a("a list of three numbers each", _triples)
model = is_a(
    "the name of a model",
    lambda value: isinstance(value, str) and value[:1] not in ("/", "\\")
    and not {".", ".."} & set(re.split(r"[/\\]", value)),
)  # fmt: skip
window = is_a("start, end and steps", lambda value: isinstance(value, list) and _numbers(value, 0) and len(value) == 3)
maybe_number = is_a("a number or null", lambda value: value is None or type(value) in (int, float))
