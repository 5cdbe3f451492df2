from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backends.base import Shape
from backends.json_codec import NotThisType, from_json, to_json


class Colour(enum.Enum):
    red = "r"
    blue = "b"


@dataclass(frozen=True)
class Inner:
    path: Path
    colour: Colour = Colour.red


@dataclass(frozen=True)
class Outer:
    count: int
    ratio: float
    name: str | None
    inner: Inner
    samples: tuple[int, ...] = ()
    windows: tuple[tuple[int, str], ...] = ()
    tokens: Mapping[Shape, int] = field(default_factory=dict)
    parts: Mapping[str, Inner] = field(default_factory=dict)
    opaque: object = None


OUTER = Outer(
    1, 0.5, None, Inner(Path("/a/b"), Colour.blue), (1, 2), ((1, "x"),), {Shape(2, 3): 4}, {"p": Inner(Path("c"))}, [1]
)


def test_a_dataclass_is_equal_after_a_round_trip_through_text() -> None:
    assert from_json(Outer, json.loads(json.dumps(to_json(OUTER)))) == OUTER


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "1"}, "job.count must be of type int, not str"),
        ({"count": True}, "job.count must be of type int, not bool"),
        ({"surplus": 1}, "job.surplus is unknown"),
        ({"inner": {}}, "job.inner.path is missing"),
        ({"inner": {"path": "a", "colour": "green"}}, "job.inner.colour: 'green' is none of red, blue"),
        ({"inner": {"path": "a", "colour": ["red"]}}, "job.inner.colour: ['red'] is none of red, blue"),
        ({"windows": [[1]]}, "job.windows[0] must have 2 items, not 1"),
        ({"windows": [[1, "x"], [1, 2]]}, "job.windows[1][1] must be of type str, not int"),
        ({"windows": [[True, "x"]]}, "job.windows[0][0] must be of type int, not bool"),
        ({"samples": [1, True]}, "job.samples[1] must be of type int, not bool"),
        ({"samples": [1, "2"]}, "job.samples[1] must be of type int, not str"),
        ({"tokens": {"2x3": 4}}, "job.tokens must be a list of pairs"),
        ({"parts": {"p": 1}}, "job.parts.p must be an object, not int"),
    ],
)
def test_data_of_another_type_is_named_by_its_place(change: dict[str, object], message: str) -> None:
    with pytest.raises(NotThisType) as raised:
        from_json(Outer, {**to_json(OUTER), **change}, "job")
    assert str(raised.value) == message


def test_whole_numbers_are_floats_where_floats_belong_and_defaults_may_be_absent() -> None:
    data = {"count": 1, "ratio": 2, "name": "x", "inner": {"path": "a"}}
    found = from_json(Outer, data)
    assert (found.ratio, found.inner.colour, found.samples) == (2.0, Colour.red, ())
    assert isinstance(found.ratio, float)


def test_a_type_that_json_lacks_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="set cannot be written as JSON"):
        to_json({"a": {1}})
