"""Builds of TensorRT under a limit: the process or the thread that is limited, and options that prevent a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from fake_api import fake_api

from backends.base import BuildSpec, Device, Shape, Unavailable, Unsupported
from backends.compute_share import BuildLimit, ComputeShare
from backends.tensorrt_.build import build, build_limits
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.runtime.tensorrt_options import Engines, Target, TensorRTOptions

pytest.importorskip("cuda.bindings.driver")

from backends import green_contexts

H100 = Device("cuda", 1, "NVIDIA H100", "GPU-0", (9, 0))
OPTIONS = TensorRTOptions(min=[1, 16], opt=[1, 16], max=[1, 16])
SPEC = BuildSpec("fp16", H100, (Shape(1, 16),), True, Path("cache"), OPTIONS)
GREEN, MPS = BuildLimit("green", 0.25), BuildLimit("mps", 0.25)


class Limits:
    """Simulated green contexts and MPS, and the calls of the builder with the limit at that time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = ""
        self.calls: list[tuple[str, str]] = []
        monkeypatch.setattr(green_contexts, "divide", self.divide)
        monkeypatch.setattr(green_contexts, "made_current", self.named)
        monkeypatch.setattr(build_limits, "limited_process", lambda share: self.named(f"mps {share}"))

    def divide(self, index: int, shares: tuple[float, ...]) -> tuple[ComputeShare, ...]:
        return (ComputeShare(33, 132, f"green {index} {shares}"),)

    @contextmanager
    def named(self, name: object) -> Iterator[None]:
        before, self.current = self.current, str(name)
        yield
        self.current = before

    def note(self, call: str) -> None:
        self.calls.append((call, self.current))


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Limits:
    return Limits(monkeypatch)


def test_tactics_are_timed_in_the_green_context_and_the_plan_is_opened_outside(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    api, builder, config = fake_api(), MagicMock(), MagicMock()
    config.add_optimization_profile.return_value = 0
    builder.create_builder_config.return_value = config
    builder.create_network.return_value.num_layers = 1
    builder.build_serialized_network.side_effect = lambda *_: (limits.note("build"), b"plan")[1]
    api.trt.Builder.side_effect = lambda logger: (limits.note("builder"), builder)[1]
    timings: list[Path] = []
    replaced: dict[str, Any] = {
        "use_device": lambda index: limits.note("device"), "free_memory": lambda: 1 << 40,
        "find_faults": lambda *_: limits.note("open") or [], "load_plugins": lambda *_: None,
        "write_layers": lambda *_: {}, "load_timings": lambda config, path: timings.append(path),
        "save_timings": lambda config, path: timings.append(path),
    }  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(build, name, value)
    monkeypatch.setattr("backends.tensorrt_.build.progress.free_memory", lambda: 1 << 40)
    layout: Any = SimpleNamespace(sizes=lambda profile: {})
    spec = replace(SPEC, cache=tmp_path, build_limit=GREEN)
    build.build_plan(api, spec, tmp_path / "plan", lambda target: (layout, {}))
    current = "green 1 (0.25,)"
    assert limits.calls == [("device", ""), ("builder", current), ("build", current), ("open", "")]
    assert len(timings) == 2
    assert {path.name for path in timings} == {timings[0].name}
    assert "on-green-25-percent" in timings[0].name


@pytest.mark.parametrize(("limit", "current"), [(None, ""), (GREEN, ""), (MPS, "mps 0.25")], ids=str)
def test_mps_limits_the_process_before_tensorrt_is_loaded(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: BuildLimit | None, current: str
) -> None:
    def find_api() -> Any:
        limits.note("load")
        return fake_api()

    def build_plan(api: object, spec: BuildSpec, path: Path, define: object, early: object) -> dict[str, object]:
        limits.note("build")
        path.write_bytes(b"plan")
        return {}

    monkeypatch.setattr(build, "build_plan", build_plan)
    spec = replace(SPEC, cache=tmp_path, build_limit=limit)
    for _ in range(2):
        TensorRT(find_api).engine(spec, {"onnx": "0"}, MagicMock())
    assert limits.calls == [("load", current), ("build", current)]  # the second engine is from the cache


def test_a_build_that_the_daemon_did_not_serve_leaves_no_engine(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @contextmanager
    def unserved(share: float) -> Iterator[None]:
        yield
        raise Unavailable("no server")

    def build_plan(api: object, spec: BuildSpec, path: Path, define: object, early: object) -> dict[str, object]:
        path.write_bytes(b"plan")
        return {}

    monkeypatch.setattr(build_limits, "limited_process", unserved)
    monkeypatch.setattr(build, "build_plan", build_plan)
    spec = replace(SPEC, cache=tmp_path, build_limit=MPS)
    with pytest.raises(Unavailable, match="no server"):
        TensorRT(fake_api).engine(spec, {"onnx": "0"}, MagicMock())
    assert list(tmp_path.rglob("model.plan")) == []


@pytest.mark.parametrize(
    ("limit", "device", "options", "message"),
    [
        (MPS, H100, TensorRTOptions(engines=Engines.per_shape), "MPS limits the first build of a process only"),
        (GREEN, H100, TensorRTOptions(builder_threads=4), "a green context is that of one thread"),
        (GREEN, replace(H100, uuid=""), TensorRTOptions(target=Target.sm89), "a build for trt.target uses no GPU"),
    ],
    ids=str,
)
def test_options_that_prevent_a_limit_are_unsupported(
    tmp_path: Path, limit: BuildLimit, device: Device, options: TensorRTOptions, message: str
) -> None:
    spec = replace(SPEC, device=device, options=options, cache=tmp_path, build_limit=limit)
    with pytest.raises(Unsupported, match=message):
        TensorRT(fake_api).engine(spec, {"onnx": "0"}, MagicMock())
    other = {GREEN: MPS, MPS: GREEN}[limit]
    if device is H100:
        build_limits.check_build_limit(replace(spec, build_limit=other))
    build_limits.check_build_limit(replace(spec, build_limit=None))
