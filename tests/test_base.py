"""The base classes of backends and sessions: one abstract verb opens a session, and one changes its shape."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from backends.base import Backend, BuildSpec, Device, Opening, Session, Shape, opened_session
from backends.null_.null import Costs, NullSession
from backends.null_.null_options import NullOptions
from backends.options import BackendOptions
from backends.registry import descriptions, load_backend

MODULES = sorted({described.factory.partition(":")[0] for described in descriptions().values()})
"""Modules of the backends."""


def test_open_runs_all_parts_and_returns_the_session() -> None:
    parts = []
    session = NullSession("ok", Costs())

    def opening() -> Opening:
        for number in range(2):
            parts.append(number)
            yield f"part {number}", session if number else None

    assert opened_session(opening()) is session
    assert parts == [0, 1]


def test_a_backend_without_opening_and_a_session_without_changing_are_abstract() -> None:
    assert "opening" in Backend.__abstractmethods__
    assert "changing" in Session.__abstractmethods__


def test_options_have_the_class_of_their_backend() -> None:
    options = NullOptions(step_ms=2.0)
    spec = BuildSpec("fp32", Device(), (), False, Path("cache"), options)
    assert spec.options_as(NullOptions) is spec.options_as(BackendOptions) is options
    with pytest.raises(TypeError, match="the options are NullOptions, not Shape"):
        spec.options_as(Shape)


@pytest.mark.parametrize("module", MODULES)
def test_no_subclass_overrides_a_short_form(module: str) -> None:
    classes = [member for _, member in inspect.getmembers(importlib.import_module(module), inspect.isclass)]
    backends = [member for member in classes if issubclass(member, Backend) and member is not Backend]
    sessions = [member for member in classes if issubclass(member, Session) and member is not Session]
    assert backends
    assert all(backend.open is Backend.open for backend in backends)
    assert all(session.set_shape is Session.set_shape for session in sessions)


@pytest.mark.parametrize("name", descriptions())
def test_every_backend_declares_what_its_base_class_reads(name: str) -> None:
    """An attribute that no base class has is often an outdated name, whose base class default then applies."""
    backend = type(load_backend(name))
    own = {item for item in vars(backend) if not item.startswith("_")} - set(
        getattr(backend, "__dataclass_fields__", ())
    )
    assert own <= {item for base in backend.__mro__[1:] for item in dir(base)}


def test_a_shape_is_read_from_its_text_and_from_its_sizes() -> None:
    assert Shape.parse("8x128") == Shape.parse([8, 128]) == Shape.parse((8, 128)) == Shape(8, 128)
    assert Shape.parse(str(Shape(3, 17))) == Shape(3, 17)


@pytest.mark.parametrize(
    "wrong", ["8", "8x", "x128", "8x128x2", "8x-1", "ax1", "", [8], [8, 128, 2], [8, 1.5], [8, -1]]
)
def test_other_texts_and_sizes_are_not_shapes(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a shape, such as 8x128"):
        Shape.parse(wrong)  # type: ignore[arg-type]
