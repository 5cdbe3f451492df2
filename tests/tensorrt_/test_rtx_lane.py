"""Backend trt with TensorRT-RTX: targets, refusals, and sessions with mocks. test_rtx_builds.py builds engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_api import RTX_ONLY, fake_api
from omegaconf import OmegaConf

from backends.base import BuildSpec, Device, Shape, Unsupported
from backends.config_key import cell_mapping
from backends.json_codec import from_json
from backends.tensorrt_.build.logged_layers import logged_layers, operand_types
from backends.tensorrt_.plugin_backend import TensorRTPlugin
from backends.tensorrt_.runtime import tensorrt_api
from backends.tensorrt_.runtime.target import check_target
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from backends.tensorrt_.session.runtime_config import FOLDER, ContextFactory
from suites.asking import chosen_machine
from suites.asking.request import resolve
from suites.schema.refusals import Refused
from suites.schema.run_schema import run_schema

RTX4090 = Device("cuda", 0, "NVIDIA GeForce RTX 4090", "GPU-0", (8, 9), driver="580")
SHAPES = (Shape(1, 16), Shape(4, 32))


def options(**given: Any) -> TensorRTOptions:
    return from_json(TensorRTOptions, {"min": [1, 16], "opt": [4, 32], "max": [4, 32], **given})


def spec(cache: Path = Path("cache"), precision: str = "fp16", device: Device = RTX4090, **given: Any) -> BuildSpec:
    return BuildSpec(precision, device, SHAPES, True, cache, options(**given))


def device_of(capability: tuple[int, int]) -> Device:
    return replace(RTX4090, name="NVIDIA Test", compute_capability=capability)


def test_the_module_that_is_installed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, module in (({"tensorrt_rtx"}, "tensorrt_rtx"), ({"tensorrt", "tensorrt_rtx"}, "tensorrt"), (set(), "")):
        monkeypatch.setattr(tensorrt_api, "find_spec", lambda name, found=found: name in found)
        monkeypatch.setattr(tensorrt_api.sys, "modules", {})
        assert tensorrt_api.installed_module() == module


@pytest.mark.parametrize(
    ("capability", "given", "reason"),
    [
        ((9, 0), {}, "does not run on NVIDIA Test, which has compute capability 9.0"),
        ((9, 0), {"target": "portable"}, "does not run on NVIDIA Test"),
        ((10, 0), {}, "set interpreter.trt to a Python with the package tensorrt"),
        ((8, 6), {"target": "sm89"}, "trt.target=sm89 is not for NVIDIA Test, which has compute capability 8.6"),
        ((8, 9), {"hardware_compatible": True}, "trt.hardware_compatible is not for TensorRT-RTX"),
    ],
)
def test_a_gpu_without_engines_is_refused_before_the_build(
    capability: tuple[int, int], given: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        check_target(fake_api(RTX_ONLY), spec(device=device_of(capability), **given))


@pytest.mark.parametrize("given", [{"target": "sm89"}, {"dynamic_shapes": "lazy"}, {"runtime_cache": True},
                                   {"graphs": "runtime"}])  # fmt: skip
def test_options_of_tensorrt_rtx_are_refused_elsewhere(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(Unsupported, match=f"trt.{name}={str(value).lower()} needs TensorRT-RTX, but this"):
        check_target(fake_api({"weak_typing"}), spec(**given))


@pytest.mark.parametrize(("capability", "given"), [((8, 9), {}), ((12, 5), {}), ((8, 0), {"target": "portable"})])
def test_a_gpu_with_engines_is_accepted(capability: tuple[int, int], given: dict[str, Any]) -> None:
    check_target(fake_api(RTX_ONLY), spec(device=device_of(capability), **given))


def test_the_plugin_backend_refuses_tensorrt_rtx() -> None:
    with pytest.raises(Unsupported, match="no BERT plugins and no kernel of packed attention; use backend=trt"):
        TensorRTPlugin(lambda: fake_api(RTX_ONLY)).check(spec())


def test_a_cell_omits_the_new_options_at_their_defaults() -> None:
    names = {"target", "dynamic_shapes", "runtime_cache", "graphs"}
    assert not names & cell_mapping(options()).keys()
    assert names <= cell_mapping(options(target="sm89", dynamic_shapes="lazy", runtime_cache=True,
                                         graphs="runtime")).keys()  # fmt: skip
    assert not options(graphs="runtime").has_graphs("cuda")


def config_of(tmp_path: Path, *overrides: str) -> Any:
    base = OmegaConf.structured(run_schema())
    own = [f"results={tmp_path}", f"cache={tmp_path}", "weights=random", "model.architecture={model_type: bert}"]
    return OmegaConf.to_object(OmegaConf.merge(base, OmegaConf.from_dotlist([*own, "backend=trt", *overrides])))


def test_a_build_for_a_named_target_needs_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen_machine, "gpus", list)
    with pytest.raises(Refused, match="or add until=build, which builds for tensorrt-rtx sm86 without a GPU"):
        resolve(config_of(tmp_path, "trt.target=sm86"))
    request = resolve(config_of(tmp_path, "trt.target=sm86", "until=build"))
    assert request.machine.slug == "tensorrt-rtx-sm86"
    assert request.spec.device == Device("cuda", name="tensorrt-rtx sm86", compute_capability=(8, 6))
    assert request.spec.device.reference_kind == "cpu"


class Engine:
    """Mock of an engine; `accepts` is whether it accepts the kernels in a file."""

    def __init__(self, accepts: bool = True) -> None:
        self.read: list[bytes] = []

        def deserialize(content: bytes) -> bool:
            self.read.append(content)
            return accepts

        cache = SimpleNamespace(deserialize=deserialize, serialize=lambda: b"kernels")
        self.config = SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda cache: None)
        self.given: tuple[Any, ...] | None = None

    def create_runtime_config(self) -> Any:
        return self.config

    def create_execution_context(self, *given: Any) -> str:
        self.given = given
        return "context"


def factory(tmp_path: Path, plan: bytes = b"plan", cuda_graph: bool = False, **given: Any) -> ContextFactory:
    api = fake_api(RTX_ONLY)
    api.trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager", NONE="none")
    api.trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    return ContextFactory(api, replace(spec(tmp_path, **given), cuda_graph=cuda_graph), plan)


def test_options_of_the_runtime_reach_the_context(tmp_path: Path) -> None:
    engine: Any = Engine()
    assert factory(tmp_path, dynamic_shapes="none", graphs="runtime").new_context(engine) == "context"
    assert engine.given == (engine.config,)
    assert engine.config.dynamic_shapes_kernel_specialization_strategy == "none"
    assert engine.config.cuda_graph_strategy == "whole"
    plain: Any = Engine()
    factory(tmp_path).new_context(plain)
    assert plain.given == ()


def test_kernels_are_compiled_before_the_suite_captures_a_step(tmp_path: Path) -> None:
    engine: Any = Engine()
    factory(tmp_path, cuda_graph=True).new_context(engine)
    assert engine.config.dynamic_shapes_kernel_specialization_strategy == "eager"


def test_a_runtime_cache_serves_its_own_plan_only(tmp_path: Path) -> None:
    engine: Any = Engine()
    first = factory(tmp_path, runtime_cache=True)
    first.new_context(engine)
    first.save()
    assert first.path.read_bytes() == b"kernels"
    factory(tmp_path, runtime_cache=True).new_context(engine)
    assert engine.read == [b"kernels"]
    factory(tmp_path, b"plan of another build", runtime_cache=True).new_context(engine)
    assert engine.read == [b"kernels"]


def test_a_runtime_cache_that_is_not_accepted_is_renamed_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contexts, engine = factory(tmp_path, runtime_cache=True), Engine(accepts=False)
    contexts.path.parent.mkdir()
    contexts.path.write_bytes(b"of another driver")
    contexts.new_context(engine)  # type: ignore[arg-type]
    assert contexts.path.with_suffix(".rejected").read_bytes() == b"of another driver"
    (line,) = caplog.messages
    assert "is damaged, or of another release, GPU or driver" in line
    contexts.save()
    assert [path.name for path in (tmp_path / FOLDER).glob("*.bin")] == [contexts.path.name]


def test_layers_are_read_from_lines_of_the_log() -> None:
    product = (
        "Name: a+b_myl0_1, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [1,8], Datatype: Int8 }], Constants: [ "
        "{ Name: w, Datatype: Int8 }], Outputs: [ { Name: y, Datatype: Float }], TacticName: t, StreamId: 0"
    )
    (layer,) = logged_layers([product, "another line"])
    assert (layer["Name"], layer["LayerType"], layer["TacticName"]) == ("a+b_myl0_1", "gemm", "t")
    assert (layer["Inputs"], layer["Outputs"]) == ([{"Format/Datatype": "Int8"}], [{"Format/Datatype": "Float"}])
    assert operand_types([layer]) == {"i8": 1}
