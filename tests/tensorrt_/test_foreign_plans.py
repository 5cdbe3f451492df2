"""Plans of another release, target or machine: they are never taken from the cache, and give one line elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from api_reader import names_of
from fake_api import RTX_ONLY, fake_api

from backends.base import BuildSpec, Device, Shape
from backends.compute_share import BuildLimit
from backends.json_codec import from_json
from backends.tensorrt_.build import engine
from backends.tensorrt_.build.engine import cached_engine
from backends.tensorrt_.runtime.installation import available_api
from backends.tensorrt_.runtime.loading import INVALIDITY, NO_REASON, read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_options import Target, TensorRTOptions
from backends.tensorrt_.session import loaded_plan
from backends.tensorrt_.session.loaded_plan import LoadedPlan

OPTIONS = from_json(TensorRTOptions, {"min": [1, 16], "opt": [4, 32], "max": [4, 32]})
GPU = Device("cuda", 0, "NVIDIA GeForce RTX 4090", "GPU-0", (8, 9), driver="580")
SPEC = BuildSpec("fp16", GPU, (Shape(1, 16),), True, Path("cache"), OPTIONS)


@pytest.mark.parametrize(
    ("reasons", "names"),
    [(1 << number, [name]) for number, name in enumerate(INVALIDITY)]
    + [(3, ["VERSION_MISMATCH", "UNSUPPORTED_CC"]), (0, [])],
)
def test_each_reason_of_tensorrt_rtx_says_what_to_do(reasons: int, names: list[str]) -> None:
    api = fake_api(RTX_ONLY)
    api.trt.EngineInvalidityDiagnostics.__members__ = {name: 1 << number for number, name in enumerate(INVALIDITY)}
    reader = api.trt.Runtime.return_value
    reader.get_engine_validity.return_value = (api.trt.EngineValidity.INVALID, reasons)
    log = Log(api)
    assert read_plan(api, b"plan", OPTIONS, log) is None
    explained = "; ".join(INVALIDITY[name] for name in names) or NO_REASON
    assert log.errors == [f"the plan does not run here: {explained}"]
    assert not reader.deserialize_cuda_engine.called


def test_all_reasons_of_the_release_are_explained() -> None:
    assert names_of("rtx-1.7.1")["EngineInvalidityDiagnostics"] == INVALIDITY.keys()


def test_the_runtime_of_tensorrt_rtx_says_that_a_plan_is_damaged() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    api = available_api()
    if not api.can.engine_validity:
        pytest.skip("this interpreter has TensorRT too, which comes first")
    log = Log(api)
    assert read_plan(api, b"a plan of another product" * 40, OPTIONS, log) is None
    assert log.errors[-1] == f"the plan does not run here: {INVALIDITY['MALFORMED_ENGINE']}"


def test_a_plan_that_the_release_cannot_read_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded_plan, "use_device", lambda index: None)

    def refuse(api: Any, plan: bytes, options: Any, log: Log) -> None:
        log.errors.append("Version tag does not match.\n  Current version: 240, serialized engine version: 239")

    monkeypatch.setattr(loaded_plan, "read_plan", refuse)
    with pytest.raises(RuntimeError) as refused:
        LoadedPlan(fake_api(version="10.16.1"), SPEC, b"plan of 8.6")
    assert str(refused.value) == (
        "TensorRT 10.16.1 cannot read the plan: Version tag does not match. Current version: 240, serialized engine "
        "version: 239"
    )


@pytest.mark.parametrize(
    "other",
    [
        replace(SPEC, device=replace(GPU, name="NVIDIA GeForce RTX 4070")),
        replace(SPEC, device=replace(GPU, compute_capability=(12, 0))),
        replace(SPEC, device=replace(GPU, driver="570")),
        replace(SPEC, options=replace(OPTIONS, target=Target.sm89)),
        replace(SPEC, precision="fp32"),
        replace(SPEC, build_limit=BuildLimit("green", 0.25)),
    ],
    ids=["GPU", "compute capability", "driver", "target", "precision", "limit"],
)  # fmt: skip
def test_a_cached_plan_serves_its_own_gpu_driver_and_target_only(other: BuildSpec, tmp_path: Path) -> None:
    built: list[BuildSpec] = []

    def build(spec: BuildSpec, path: Path) -> Mapping[str, object]:
        built.append(spec)
        path.write_bytes(b"plan %d" % len(built))
        return {}

    first, second = replace(SPEC, cache=tmp_path), replace(other, cache=tmp_path)
    plans = [cached_engine(spec, {"onnx": "0"}, build).sha256 for spec in (first, second, first)]
    assert built == [first, second]
    assert plans[0] == plans[2] != plans[1]


def test_a_cached_plan_serves_its_own_release_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    releases, spec = iter(["1.6", "1.7"]), replace(SPEC, cache=tmp_path)
    built: list[Path] = []
    monkeypatch.setattr(engine, "versions_of", lambda packages: {"tensorrt-rtx": next(releases)})

    def build(spec: BuildSpec, path: Path) -> Mapping[str, object]:
        built.append(path)
        path.write_bytes(b"plan")
        return {}

    for _ in range(2):
        cached_engine(spec, {"onnx": "0"}, build)
    assert len(built) == 2
