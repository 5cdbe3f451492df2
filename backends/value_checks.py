"""Refusals of values, and range checks. Needs CPython 3.10 and the standard library only."""

from __future__ import annotations

import math
from typing import TypeVar

Number = TypeVar("Number", int, float)


class Refused(ValueError):
    """A request that cannot run. The message is one line with the fault and the correction."""


def positive(key: str, value: float) -> float:
    """Return a value that is greater than 0 and finite; refuse others."""
    if not 0 < value < float("inf"):
        raise Refused(f"{key}={value} must be greater than 0 and finite")
    return value


def at_least(key: str, value: Number, least: int) -> Number:
    """Return a finite value that is not less than `least`; refuse others."""
    if not math.isfinite(value):
        raise Refused(f"{key}={value} must be a finite number of at least {least}")
    if value < least:
        raise Refused(f"{key}={value} must be at least {least}")
    return value


def between(key: str, value: float, least: float, most: float) -> float:
    """Return a value from `least` to `most`, both included; refuse others."""
    if not least <= value <= most:
        raise Refused(f"{key}={value} must be between {least:g} and {most:g}")
    return value
