"""The streams that PyTorch sessions use, with a fake torch.cuda that records the work. No GPU is needed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backends.base import Array
from backends.torch_.torch_session import TorchSteps

DEFAULT = "default"


class Card:
    """A fake of torch.cuda and backends.cuda that records the current stream and the work enqueued on each stream."""

    def __init__(self) -> None:
        self.current, self.opened = DEFAULT, 0
        self.done: list[tuple[str, str]] = []

    def note(self, what: str) -> None:
        self.done.append((what, self.current))


class OnStream:
    """A fake of torch.cuda.stream that can be entered many times."""

    def __init__(self, card: Card, name: str) -> None:
        self.card, self.name = card, name

    def __enter__(self) -> None:
        self.before, self.card.current = self.card.current, self.name

    def __exit__(self, *raised: object) -> None:
        self.card.current = self.before


class Graph:
    def __init__(self, card: Card) -> None:
        self.card = card

    def replay(self) -> None:
        self.card.note("replay")

    def pool(self) -> str:
        return "pool"


class Steps(TorchSteps):
    """A model that doubles its input."""

    def __init__(self, card: Card) -> None:
        super().__init__("cuda", 0)
        self._device = torch.device("cpu")
        self._card = card

    def changing(self, feeds: Any) -> Iterator[str]:
        self._use(feeds)
        yield "set shape"

    def _enqueue_copy_in(self) -> None:
        self._card.note("copy in")
        super()._enqueue_copy_in()

    def _forward(self) -> torch.Tensor:
        self._card.note("forward")
        return self._buffers.inputs["x"] * 2.0


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    card = Card()

    def opened(index: int) -> Any:
        card.opened += 1
        return SimpleNamespace(handle=card.opened, synchronize=lambda: None)

    def empty_like(like: torch.Tensor, *, device: Any = None, pin_memory: bool = False) -> torch.Tensor:
        card.note("allocate")
        return torch.zeros(like.shape, dtype=like.dtype)

    monkeypatch.setitem(sys.modules, "backends.cuda", SimpleNamespace(CudaStream=opened))
    monkeypatch.setattr(torch, "empty_like", empty_like)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: f"own {handle}")
    monkeypatch.setattr(torch.cuda, "stream", lambda name: OnStream(card, name))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(card))
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, stream, pool="": OnStream(card, f"capture on {stream}"))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: card.note("empty"))
    return card


def feeds(size: int, value: float = 1.0) -> dict[str, Array]:
    return {"x": np.full(size, value, np.float32)}


def worked(session: Steps, *sizes: int) -> list[tuple[str, str]]:
    """Run steps at these sizes and return the work and the stream of each."""
    session._card.done.clear()
    for size in sizes:
        session.load(feeds(size))
        session.step()
    return [(what, where) for what, where in session._card.done if what in ("forward", "replay", "copy in")]


def test_each_session_uses_its_own_stream_even_if_another_was_opened_later(card: Card) -> None:
    with Steps(card) as first, Steps(card) as second:
        assert card.current == DEFAULT
        assert worked(first, 2) == [("copy in", "own 1"), ("forward", "own 1")]
        assert worked(second, 2) == [("copy in", "own 2"), ("forward", "own 2")]
        assert worked(first, 3) == [("copy in", "own 1"), ("forward", "own 1")]
        assert first.fetch().tolist() == [2.0] * 3
        assert card.done[-1] == ("allocate", "own 1")
        first.capture()
        assert card.done[-1] == ("forward", "capture on own 1")
        assert worked(first, 3)[-1] == ("replay", "own 1")
        assert card.current == DEFAULT


def test_buffers_are_kept_per_shape_and_graphs_only_on_request(card: Card) -> None:
    with Steps(card) as session:
        worked(session, 2, 3)
        addresses = {size: session._buffers_by_key[("x", (size,)),].inputs["x"].data_ptr() for size in (2, 3)}
        worked(session, 2)
        session.capture()
        assert session.replays
        assert worked(session, 2) == [("copy in", "own 1"), ("replay", "own 1")]
        # Not requested: the graph is dropped when the shape changes.
        assert [what for what, _ in worked(session, 3, 2)] == ["copy in", "forward"] * 2
        session.keeps_graphs = True
        session.capture()
        assert [what for what, _ in worked(session, 3, 2)] == ["copy in", "forward", "copy in", "replay"]
        session.keeps_graphs = False
        assert not session.replays
        assert [what for what, _ in worked(session, 2, 3, 2)] == ["copy in", "forward"] * 3
        session.keeps_graphs = True
        # The graph is used again, also if the shape has not changed since the plain step.
        assert [what for what, _ in worked(session, 2)] == ["copy in", "replay"]
        assert {size: session._buffers_by_key[("x", (size,)),].inputs["x"].data_ptr() for size in (2, 3)} == addresses


def served(session: Steps, size: int) -> list[str]:
    """Serve a request of this size and return the work; "capture" for the capture of a graph."""
    session._card.done.clear()
    assert session.answer(feeds(size)).shape == (size,)
    return ["capture" if "capture" in where and what == "forward" else what for what, where in session._card.done]


def test_a_request_with_a_graph_is_one_replay(card: Card) -> None:
    with Steps(card) as session:
        assert served(session, 2) == ["copy in", "forward", "allocate"]
        session.capture()
        assert served(session, 2)[-3:] == ["copy in", "capture", "replay"]
        assert served(session, 2) == ["replay"]
        # The step alone still has a graph of its own, and another shape has none.
        assert [what for what, _ in worked(session, 2)] == ["copy in", "replay"]
        assert "forward" in served(session, 3)


def test_a_kept_graph_of_a_request_keeps_its_pinned_memory(card: Card) -> None:
    with Steps(card) as session:
        session.keeps_graphs = True
        served(session, 2)
        session.capture()
        served(session, 2)
        kept = session._buffers.host
        served(session, 3)
        assert served(session, 2) == ["replay"]
        assert session._buffers.host is kept


def test_closing_frees_memory(card: Card) -> None:
    session = Steps(card)
    worked(session, 2, 3)
    session.close()
    assert session._buffers_by_key == {}
    assert card.done[-1] == ("empty", DEFAULT)
