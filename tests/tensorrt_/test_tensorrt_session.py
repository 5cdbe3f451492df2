"""Calls of a session to TensorRT at changes of shape, with a mock engine that records the calls."""

from __future__ import annotations

import gc
import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_api import ALL, RTX_ONLY, fake_api

from backends.base import Artifact, BuildSpec, Device, Feeds, Session, Unsupported, opened_session
from backends.json_codec import from_json
from backends.tensorrt_.runtime.layout import Rows
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from backends.tensorrt_.session import loaded_plan, open_session, session

PROFILES = (((1, 8), (1, 8), (1, 8)), ((1, 8), (4, 16), (4, 16)))
"""A fixed profile, and a wide one that contains it: min, opt and max [batch, sequence]."""
HIDDEN = 4
CONTEXTS: list[Context] = []
"""Contexts of the session that was opened last."""


class Context:
    """Mock of an execution context, which records its calls."""

    def __init__(self, calls: list[tuple[Any, ...]], number: int) -> None:
        self.calls, self.number, self.shape = calls, number, (0, 0)

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        return True

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.calls.append(("profile", self.number, profile))
        return True

    def set_input_shape(self, name: str, shape: tuple[int, int]) -> bool:
        self.shape = shape
        if name == "input_ids":
            self.calls.append(("shape", self.number, shape))
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (*self.shape, HIDDEN)

    def execute_async_v3(self, stream: int) -> bool:
        self.calls.append(("run", self.number, self.shape))
        return True


class Engine:
    num_io_tensors, num_optimization_profiles, device_memory_size_v2 = 3, len(PROFILES), 1 << 30

    def __init__(self, calls: list[tuple[Any, ...]]) -> None:
        self.calls, self.contexts = calls, 0

    def get_tensor_name(self, index: int) -> str:
        return ("input_ids", "attention_mask", "last_hidden_state")[index]

    def get_tensor_mode(self, name: str) -> str:
        return "output" if name == "last_hidden_state" else "input"

    def get_tensor_profile_shape(self, name: str, profile: int) -> Any:
        return PROFILES[profile]

    def get_tensor_dtype(self, name: str) -> str:
        return "float"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, -1, HIDDEN)

    def create_execution_context(self) -> Context:
        self.contexts += 1
        context = Context(self.calls, self.contexts)
        CONTEXTS.append(context)
        return context


class Graph:
    """Mock of a CUDA graph: the calls of `work` are captured, and `launch` repeats them as one call."""

    def __init__(self, stream: Any, work: Callable[[], None]) -> None:
        self.calls, begin = stream.calls, len(stream.calls)
        work()
        captured = self.calls[begin:]
        del self.calls[begin:]
        copies = [name for name, *_ in captured if name != "run"]
        (self.captured,) = [(*call[1:], *copies) for call in captured if call[0] == "run"]
        self.calls.append(("capture", *self.captured))

    def launch(self) -> None:
        self.calls.append(("launch", *self.captured))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Session]:
    """Return a function that opens a session of the mock engine. `calls` of its stream are the calls since then."""
    calls: list[tuple[Any, ...]] = []
    api = fake_api(ALL - {"memory_size_v1"} - RTX_ONLY)
    api.trt.DataType = SimpleNamespace(FLOAT="float", HALF="half", INT32="int32")
    api.trt.TensorIOMode.OUTPUT = "output"
    api.trt.Runtime.return_value.deserialize_cuda_engine.side_effect = lambda plan: Engine(calls)
    copies = {name: lambda *_, name=name: calls.append((name,)) for name in ("copy_in", "copy_out")}
    stream = SimpleNamespace(handle=0, calls=calls, contexts=CONTEXTS, synchronize=lambda: None, **copies)
    monkeypatch.setattr(loaded_plan, "use_device", lambda index: None)
    monkeypatch.setattr(session, "CudaGraph", Graph)
    monkeypatch.setattr(session, "DeviceArray", lambda size: SimpleNamespace(pointer=size))
    monkeypatch.setattr(session, "PinnedArray", lambda shape, kind: SimpleNamespace(array=np.zeros(shape, kind)))
    monkeypatch.setattr(open_session, "use_device", lambda index: None)
    monkeypatch.setattr(open_session, "CudaStream", lambda index: stream)
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")

    def open_plan(free: int = 8 << 30, context_bytes: int = 0, **options: Any) -> Session:
        monkeypatch.setattr(open_session, "free_memory", lambda: free - context_bytes * len(CONTEXTS))
        sha256 = hashlib.sha256(b"plan").hexdigest()
        CONTEXTS.clear()
        spec = BuildSpec("fp16", Device("cuda"), (), True, tmp_path,
                         from_json(TensorRTOptions, options))  # fmt: skip
        layout = Rows(("input_ids", "attention_mask"))
        opened = opened_session(open_session.opening(api, spec, Artifact(plan, sha256), layout))
        calls.clear()
        return opened

    return open_plan


def feeds(batch: int, sequence: int) -> Feeds:
    ones = np.ones((batch, sequence), np.int32)
    return {"input_ids": ones, "attention_mask": ones}


def calls_at(session: Session, *shapes: tuple[int, int]) -> list[tuple[Any, ...]]:
    """Run one step at each of `shapes`, and return the calls but those of the copies."""
    calls = session.stream.calls  # type: ignore[union-attr]
    calls.clear()
    for shape in shapes:
        session.load(feeds(*shape))
        session.step()
    return [call for call in calls if call != ("copy_in",)]


def calls_of_request(session: Session, *shape: int) -> list[tuple[Any, ...]]:
    """Serve one request, and return all calls."""
    calls = session.stream.calls  # type: ignore[union-attr]
    calls.clear()
    assert session.answer(feeds(*shape)).shape == (*shape, HIDDEN)
    return list(calls)


def test_one_context_changes_profile_and_shape_only_where_they_differ(opened: Callable[..., Session]) -> None:
    session = opened()
    assert calls_at(session, (1, 8), (1, 8)) == [("shape", 1, (1, 8)), ("run", 1, (1, 8)), ("run", 1, (1, 8))]
    assert calls_at(session, (2, 8), (4, 16), (1, 8)) == [
        ("profile", 1, 1), ("shape", 1, (2, 8)), ("run", 1, (2, 8)),
        ("shape", 1, (4, 16)), ("run", 1, (4, 16)),
        ("profile", 1, 0), ("shape", 1, (1, 8)), ("run", 1, (1, 8)),
    ]  # fmt: skip


def test_after_a_refused_batch_no_batch_is_loaded(opened: Callable[..., Session]) -> None:
    session = opened()
    with pytest.raises(RuntimeError, match="no batch is loaded"):
        session.step()
    calls_at(session, (1, 8))
    with pytest.raises((Unsupported, ValueError), match="9x99"):
        session.load(feeds(9, 99))
    # The batch is refused before the enqueue, so the engine gets no call.
    assert session.stream.calls[-1] == ("run", 1, (1, 8))  # type: ignore[union-attr]
    for method in (session.step, session.capture):
        with pytest.raises(RuntimeError, match=r"no batch is loaded|plain step at this shape first"):
            method()
    assert calls_at(session, (1, 8))[-1] == ("run", 1, (1, 8))


def test_capture_needs_a_plain_step_first(opened: Callable[..., Session]) -> None:
    session = opened()
    session.load(feeds(1, 8))
    with pytest.raises(RuntimeError, match="plain step at this shape first"):
        session.capture()


def test_a_graph_is_dropped_at_a_change_of_shape_unless_it_is_kept(opened: Callable[..., Session]) -> None:
    session = opened()
    calls_at(session, (1, 8))
    session.capture()
    assert calls_at(session, (1, 8)) == [("launch", 1, (1, 8))]
    assert calls_at(session, (2, 8), (1, 8))[-1] == ("run", 1, (1, 8))
    session.keeps_graphs = True
    with pytest.raises(Unsupported, match="cannot keep graphs"):
        session.capture()


def test_a_context_of_one_profile_keeps_a_graph_of_each_shape(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "num_optimization_profiles", 1)
    monkeypatch.setitem(globals(), "PROFILES", PROFILES[1:])
    session = opened()
    session.keeps_graphs = True
    calls_at(session, (4, 16))
    session.capture()
    assert calls_at(session, (2, 8), (4, 16)) == [("shape", 1, (2, 8)), ("run", 1, (2, 8)), ("launch", 1, (4, 16))]
    assert session.fetch().shape == (4, 16, HIDDEN)
    with pytest.raises(RuntimeError, match="a plain step at this shape"):
        session.capture()


def test_a_request_with_a_graph_is_one_launch(opened: Callable[..., Session]) -> None:
    session = opened()
    plain = [("shape", 1, (1, 8)), ("copy_in",), ("run", 1, (1, 8)), ("copy_out",)]
    assert calls_of_request(session, 1, 8) == plain
    session.capture()
    request = 1, (1, 8), "copy_in", "copy_out"
    assert calls_of_request(session, 1, 8) == [("capture", *request), ("launch", *request)]
    assert calls_of_request(session, 1, 8) == [("launch", *request)]
    # The step alone still has a graph of its own.
    assert calls_at(session, (1, 8)) == [("launch", 1, (1, 8))]
    assert ("run", 1, (4, 16)) in calls_of_request(session, 4, 16)


def test_a_request_of_another_context_is_served_there(opened: Callable[..., Session]) -> None:
    session = opened(contexts="per_profile")
    calls_at(session, (1, 8), (4, 16))
    session.capture()
    assert calls_of_request(session, 4, 16)[-1] == ("launch", 2, (4, 16), "copy_in", "copy_out")
    assert calls_of_request(session, 1, 8) == [("copy_in",), ("run", 1, (1, 8)), ("copy_out",)]


def test_a_kept_graph_serves_requests_though_the_context_has_another_shape(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "num_optimization_profiles", 1)
    monkeypatch.setitem(globals(), "PROFILES", PROFILES[1:])
    session = opened()
    session.keeps_graphs = True
    for shape in ((2, 8), (4, 16)):
        calls_at(session, shape)
        session.capture()
    # The request of 2 x 8 was not captured before the context changed its shape, so its parts run one by one.
    assert calls_of_request(session, 2, 8) == [("copy_in",), ("launch", 1, (2, 8)), ("copy_out",)]
    assert calls_of_request(session, 4, 16)[-1] == ("launch", 1, (4, 16), "copy_in", "copy_out")
    assert calls_of_request(session, 2, 8) == [("copy_in",), ("launch", 1, (2, 8)), ("copy_out",)]
    assert calls_of_request(session, 4, 16) == [("launch", 1, (4, 16), "copy_in", "copy_out")]


def test_each_of_several_contexts_keeps_its_profile_and_shape(opened: Callable[..., Session]) -> None:
    session = opened(contexts="per_profile")
    first = calls_at(session, (1, 8), (4, 16))
    assert {number for _, number, _ in first} == {1, 2}
    assert ("profile", 2, 1) in first
    assert calls_at(session, (1, 8), (4, 16)) == [("run", 1, (1, 8)), ("run", 2, (4, 16))]
    session.keeps_graphs = True
    session.capture()
    assert calls_at(session, (1, 8), (4, 16)) == [("run", 1, (1, 8)), ("launch", 2, (4, 16))]
    assert session.fetch().shape == (4, 16, HIDDEN)


def test_refusal_of_contexts_that_do_not_fit_has_the_needed_memory(opened: Callable[..., Session]) -> None:
    assert opened(free=1025 << 20) is not None
    needs = r"2 contexts need \d+ bytes of device memory \(2048 MiB of activations.* but 1025 MiB are available"
    with pytest.raises(RuntimeError, match=needs):
        opened(free=1025 << 20, contexts="per_profile")
    with pytest.raises(RuntimeError, match=r"the context needs .* but 700 MiB are available: request smaller shapes"):
        opened(memory_mb=700)
    # The activations without weights and buffers would fit.
    with pytest.raises(RuntimeError, match="the context needs 1073"):
        opened(memory_mb=1024)


def test_contexts_that_take_more_than_their_activations_are_counted(
    opened: Callable[..., Session],
) -> None:
    several = {"contexts": "per_profile", "context_bytes": 3 << 30}
    assert opened(free=7 << 30, **several) is not None
    assert len(CONTEXTS) == 2
    needs = (
        r"2 contexts need \d+ bytes of device memory \(6144 MiB of contexts, measured on the first 2, .*5120 MiB are"
    )
    with pytest.raises(RuntimeError, match=needs):
        opened(free=7 << 30, memory_mb=5 << 10, **several)
    with pytest.raises(
        RuntimeError, match=r"the context needs \d+ bytes .*3072 MiB of contexts, measured on the first 1, "
    ):
        opened(memory_mb=2 << 10, context_bytes=3 << 30)


def test_the_parts_of_a_change_are_yielded_in_order(opened: Callable[..., Session]) -> None:
    session = opened()
    assert list(session.changing(feeds(2, 8))) == ["arrange", "profile", "input shape"]
    assert list(session.changing(feeds(4, 16))) == ["arrange", "input shape"]
    assert list(session.changing(feeds(4, 16))) == ["arrange"]
    several = opened(contexts="per_profile")
    assert list(several.changing(feeds(2, 8))) == ["context", "arrange", "profile", "input shape"]


def test_a_session_without_kept_graphs_runs_plain_steps(
    opened: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "num_optimization_profiles", 1)
    monkeypatch.setitem(globals(), "PROFILES", PROFILES[1:])
    session = opened()
    session.keeps_graphs = True
    calls_at(session, (4, 16))
    session.capture()
    session.keeps_graphs = False
    assert not session.replays
    assert calls_at(session, (4, 16)) == [("shape", 1, (4, 16)), ("run", 1, (4, 16))]
    session.keeps_graphs = True
    # The kept graph is used again, also if the shape has not changed since the plain step.
    assert calls_at(session, (4, 16)) == [("launch", 1, (4, 16))]
    session.capture()
    assert calls_at(session, (2, 8), (4, 16))[-1] == ("launch", 1, (4, 16))


def test_closing_releases_the_contexts(opened: Callable[..., Session]) -> None:
    session = opened(contexts="per_profile")
    calls_at(session, (1, 8), (4, 16))
    references = [weakref.ref(context) for context in session.stream.contexts]  # type: ignore[union-attr]
    assert len(references) == 2
    session.stream.contexts.clear()  # type: ignore[union-attr]
    session.close()
    gc.collect()
    assert [context() for context in references] == [None, None]


def test_sessions_that_are_open_at_the_same_time_share_an_engine(opened: Callable[..., Session]) -> None:
    """Each has its own context, and the engine goes with the last session."""
    first = opened(share_engine=True)
    (context,) = CONTEXTS
    engine = weakref.ref(first._plan.engine)  # type: ignore[attr-defined]
    second = opened(share_engine=True)
    assert second._plan is first._plan  # type: ignore[attr-defined]
    assert CONTEXTS[0] is not context
    assert (context.number, CONTEXTS[0].number) == (1, 2)
    alone = opened()
    assert alone._plan is not first._plan  # type: ignore[attr-defined]
    assert calls_at(second, (4, 16))[-1] == ("run", 2, (4, 16))
    first.close()
    assert calls_at(second, (2, 8))[-1] == ("run", 2, (2, 8))
    second.close()
    del first, second
    gc.collect()
    assert engine() is None
    assert not open_session.SHARED
