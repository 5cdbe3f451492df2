"""The base classes of backends and sessions: one abstract verb opens a session, and one changes its shape."""

from __future__ import annotations

import importlib
import inspect

import pytest
from backends.null import Costs, NullSession

from backends.base import BACKENDS, Backend, Opening, Session, Shape, opened_session


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


@pytest.mark.parametrize("module", sorted({place.partition(":")[0] for place in BACKENDS.values()}))
def test_no_subclass_overrides_a_short_form(module: str) -> None:
    classes = [member for _, member in inspect.getmembers(importlib.import_module(module), inspect.isclass)]
    backends = [member for member in classes if issubclass(member, Backend) and member is not Backend]
    sessions = [member for member in classes if issubclass(member, Session) and member is not Session]
    assert backends
    assert all(backend.open is Backend.open for backend in backends)
    assert all(session.set_shape is Session.set_shape for session in sessions)


def test_every_backend_declares_what_the_base_class_reads() -> None:
    """A subclass attribute that no base class has is often an outdated name, whose base class default then applies."""
    for place in BACKENDS.values():
        module = importlib.import_module(place.partition(":")[0])
        for _, backend in inspect.getmembers(module, inspect.isclass):
            if issubclass(backend, Backend) and backend is not Backend:
                own = {name for name in vars(backend) if not name.startswith("_")}
                fields = set(getattr(backend, "__dataclass_fields__", ()))
                assert own - fields <= set(dir(Backend)), backend


def test_a_shape_is_read_from_its_text_and_from_its_sizes() -> None:
    assert Shape.parse("8x128") == Shape.parse([8, 128]) == Shape.parse((8, 128)) == Shape(8, 128)
    assert Shape.parse(str(Shape(3, 17))) == Shape(3, 17)


@pytest.mark.parametrize(
    "wrong", ["8", "8x", "x128", "8x128x2", "8x-1", "ax1", "", [8], [8, 128, 2], [8, 1.5], [8, -1]]
)
def test_other_texts_and_sizes_are_not_shapes(wrong: object) -> None:
    with pytest.raises(ValueError, match="is not a shape, such as 8x128"):
        Shape.parse(wrong)  # type: ignore[arg-type]
