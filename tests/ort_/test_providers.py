"""Execution providers of backend ort: options, refusals, cells, and sessions of the providers that run on a CPU."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import table_in

from backends.base import BuildSpec, Device, Shape, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.config_key import cell_mapping
from backends.json_codec import from_json
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.options import SharedKeys, Switch
from backends.ort_ import deploy_onnx, open_provider, provider_build, provider_checks
from backends.ort_.description import OrtKeys, OrtOptions, Provider
from backends.ort_.open_provider import nodes_by_provider
from backends.ort_.ort import OnnxRuntime
from backends.ort_.providers import (
    PROVIDERS,
    TENSORRT_LIBRARIES,
    EnginePlace,
    nodes_elsewhere,
    provider_of,
    setup_of,
    tensorrt_major,
)
from backends.profiles import Profile
from backends.quantization_options import Activation, Placement, QuantizationOptions, Scheme
from backends.value_checks import Refused
from suites.measuring.machine import cpu
from suites.records.artifacts import Artifacts, BuiltFile, BuiltNotes
from suites.records.record import Record, digest_of
from suites.tables.markdown import nodes_elsewhere as nodes_fallen_back

RTX4090 = Device("cuda", 0, "NVIDIA GeForce RTX 4090", "GPU-0", (8, 9), driver="580")
SHAPES = (Shape(1, 16), Shape(4, 32))
PLACE = EnginePlace(
    Profile(Shape(1, 16), Shape(2, 32), Shape(4, 32)), ("input_ids", "attention_mask"),
    Path("engines"), Path("timings"), Path("kernels"),
)  # fmt: skip
INT8 = QuantizationOptions(
    placement=Placement.gemm, samples=8, sequence=24, activation=Activation.uint8, reduce_range=Switch.on
)
SYMMETRIC = replace(INT8, activation=Activation.int8, reduce_range=Switch.off)


def options(shared: SharedKeys | None = None, **given: Any) -> OrtOptions:
    keys = from_json(OrtKeys, given)
    return OrtOptions.resolved(shared or SharedKeys(batch=[1, 4], sequence=[16, 32]), {"ort": keys})


def spec(provider: str, precision: str = "fp16", device: Device = RTX4090, **given: Any) -> BuildSpec:
    own = options(provider=provider, **given)
    return BuildSpec(precision, device, SHAPES, True, Path("cache"), own, SYMMETRIC)


def on_cpu(provider: str, precision: str = "fp32", **given: Any) -> BuildSpec:
    return spec(provider, precision, Device(features=("avx512_bf16",)), **given)


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider_checks, "versions_of", lambda packages: dict.fromkeys(packages, "1"))
    monkeypatch.setattr(provider_checks, "tensorrt_folder", lambda major: Path("libraries"))


def test_the_default_provider_adds_nothing_to_a_cell() -> None:
    """Ids of older cells stay the same, also in a sweep over profiles with backend=trt."""
    shared = from_json(SharedKeys, {"profiles": "dynamic"})
    assert cell_mapping(options()) == cell_mapping(options(shared)) == {"fusion": "auto"}


def test_a_named_provider_is_in_the_cell() -> None:
    assert cell_mapping(options(provider="openvino")) == {"fusion": "auto", "provider": "openvino"}
    shared = from_json(SharedKeys, {"batch": [1, 4], "sequence": [16, 32], "profiles": "dynamic"})
    cell = cell_mapping(options(shared, provider="tensorrt", optimization_level=5, workspace_mb=512))
    assert cell == {
        "fusion": "auto", "provider": "tensorrt", "optimization_level": 5, "workspace_mb": 512, "profiles": "dynamic",
        "min": [1, 16], "opt": [4, 32], "max": [4, 32],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "profiles", "fault"),
    [
        ({"min": [1, 16]}, "dynamic", "ort.min is for ort.provider=tensorrt and nv_tensorrt_rtx; leave it out"),
        ({"workspace_mb": 1}, "dynamic", "ort.workspace_mb is for ort.provider=tensorrt and nv_tensorrt_rtx"),
        ({"optimization_level": 1}, "dynamic", "ort.optimization_level is for ort.provider=tensorrt; leave it out"),
        ({"provider": "tensorrt", "optimization_level": 6}, "dynamic", "must be between 0 and 5"),
        ({"provider": "tensorrt"}, "ranges", "profiles=ranges is for backend=trt and trt_plugin"),
        ({"provider": "tensorrt", "max": [4]}, "dynamic", r"ort.max=\[4\] must be a batch and a sequence length"),
        ({"provider": "tensorrt", "min": [8, 16]}, "dynamic", "ort.min, ort.opt and ort.max must not decrease"),
    ],
)
def test_options_that_contradict_one_another_are_refused(given: dict[str, Any], profiles: str, fault: str) -> None:
    shared = from_json(SharedKeys, {"batch": [1, 4], "sequence": [16, 32], "profiles": profiles})
    with pytest.raises(Refused, match=fault) as refused:
        options(shared, **given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("requested", "reason"),
    [
        (spec("openvino"), "ort.provider=openvino runs on a CPU; use device=cpu or another provider"),
        (spec("cpu"), "ort.provider=cpu runs on a CPU; use device=cpu"),
        (on_cpu("cuda"), "ort.provider=cuda runs on an NVIDIA GPU; use device=cuda or another provider"),
        (on_cpu("tensorrt"), "ort.provider=tensorrt runs on an NVIDIA GPU"),
        (on_cpu("openvino", "fp16"), "computes BERT in FP32, BF16 or INT8 on a CPU; choose one of them"),
        (replace(on_cpu("openvino", "bf16"), device=Device()), "this CPU has no BF16 instructions; use FP32 instead"),
        (spec("tensorrt", "fp8"), "has no option for FP8; use backend=trt with TensorRT 10 or newer"),
        (spec("tensorrt", fusion="on"), "has no kernels for fused operators; leave ort.fusion out"),
        (spec("nv_tensorrt_rtx", "bf16"), "cannot return BF16 outputs of a graph in BF16; use fp16"),
        (spec("tensorrt", "bf16", replace(RTX4090, compute_capability=(7, 5))), "bf16 needs compute capability 8.0"),
        (spec("nv_tensorrt_rtx", "fp8", replace(RTX4090, compute_capability=(8, 6))), "fp8 needs compute capability"),
        (spec("nv_tensorrt_rtx", device=replace(RTX4090, compute_capability=(9, 0))),
         r"which has compute capability 9.0 \(supported: 8.6, 8.9, 12.0 and above\); use ort.provider=tensorrt"),
        (replace(spec("tensorrt", "int8"), quantization=QuantizationOptions(scheme=Scheme.dynamic)),
         "ort.provider=tensorrt reads INT8 from Q/DQ: use quantization.scheme=explicit"),
        (replace(spec("tensorrt"), shapes=(Shape(8, 64),), options=replace(options(provider="tensorrt"),
         profiles=from_json(SharedKeys, {"profiles": "dynamic"}).profiles)),
         r"shape 8x64 is in no optimization profile \(1x16..4x32\); widen ort.min and ort.max$"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("everything_installed")
def test_a_cell_that_its_provider_cannot_run_is_refused(requested: BuildSpec, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        OnnxRuntime().check(requested)


@pytest.mark.parametrize("provider", [name.name for name in Provider if name is not Provider.auto])
@pytest.mark.usefixtures("everything_installed")
def test_a_cell_that_its_provider_can_run_is_accepted(provider: str) -> None:
    gpu = provider in ("cuda", "tensorrt", "nv_tensorrt_rtx")
    OnnxRuntime().check(spec(provider) if gpu else on_cpu(provider))


@pytest.mark.parametrize(
    ("provider", "missing", "advice"),
    [
        ("cuda", "onnxruntime-gpu", "ort.provider=cuda needs onnxruntime-gpu, .*: pip install onnxruntime-gpu"),
        (
            "tensorrt",
            "onnxruntime-gpu",
            "needs onnxruntime-gpu, which is not installed in this interpreter: pip",
        ),
        ("nv_tensorrt_rtx", "onnxruntime-ep-nv", "pip install onnxruntime-ep-nv-tensorrt-rtx-cu13 .or .*-cu12"),
        ("openvino", "openvino", "pip install onnxruntime-ep-openvino .or onnxruntime-openvino"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    provider: str, missing: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = lambda packages: {name: "1" for name in packages if missing not in name}  # noqa: E731
    monkeypatch.setattr(provider_checks, "versions_of", installed)
    with pytest.raises(Unavailable, match=advice) as refused:
        provider_checks.check_named_provider(
            on_cpu(provider) if provider == "openvino" else spec(provider), Provider[provider]
        )
    assert "\n" not in str(refused.value)


def test_the_release_of_tensorrt_comes_from_the_library_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    major = tensorrt_major()
    if PROVIDERS[Provider.tensorrt].name not in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("this onnxruntime has no TensorRT provider")
    assert major.isdecimal()
    monkeypatch.setattr(provider_checks, "versions_of", lambda packages: dict.fromkeys(packages, "1"))
    monkeypatch.setattr(provider_checks, "tensorrt_folder", lambda major: None)
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(Unavailable, match=f"pip install 'tensorrt>={major},<{int(major) + 1}'"):
        OnnxRuntime().check(spec("tensorrt"))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.{major}")
    OnnxRuntime().check(spec("tensorrt"))


def given_names(provider: str, **given: Any) -> dict[str, str]:
    return setup_of(spec(provider, **given), 7, True, PLACE).options


@pytest.mark.parametrize("given", [{}, {"workspace_mb": 512}])
def test_the_library_of_the_provider_has_all_names_of_options(given: dict[str, Any]) -> None:
    """onnxruntime refuses an unknown name only when it makes the provider, which needs a GPU."""
    package = find_spec("onnxruntime")
    assert package is not None
    folder = Path(next(iter(package.submodule_search_locations or ()))) / "capi"
    for provider, file in (("tensorrt", "libonnxruntime_providers_tensorrt.so"),
                           ("cuda", "libonnxruntime_providers_cuda.so")):  # fmt: skip
        library = folder / file
        if not library.is_file():
            pytest.skip(f"this onnxruntime has no {file}")
        content = library.read_bytes()
        # A text that is the end of another one is not stored again.
        own = given if provider == "tensorrt" else {}
        assert [name for name in given_names(provider, **own) if name.encode() + b"\0" not in content] == []


def test_the_plugin_of_tensorrt_rtx_declares_all_names_of_options() -> None:
    package = find_spec("onnxruntime_ep_nv_tensorrt_rtx")
    if package is None:
        pytest.skip("onnxruntime-ep-nv-tensorrt-rtx is not installed")
    header = Path(next(iter(package.submodule_search_locations or ()))) / "tensorrt_rtx_provider_options.h"
    declared = set(re.findall(r'= "(\w+)"', header.read_text(encoding="utf-8")))
    assert given_names("nv_tensorrt_rtx", workspace_mb=1).keys() <= declared
    assert provider_build.GRAPH_KEYS[1] in declared


@pytest.mark.parametrize(
    ("precision", "enabled"),
    [("fp32", set()), ("tf32", set()), ("fp16", {"fp16"}), ("bf16", {"bf16"}), ("int8", {"fp16", "int8"})],
)
def test_options_of_tensorrt(precision: str, enabled: set[str]) -> None:
    setup = setup_of(spec("tensorrt", precision, optimization_level=5, workspace_mb=2), 7, True, PLACE)
    switches = {name for name in ("fp16", "bf16", "int8") if setup.options[f"trt_{name}_enable"] == "True"}
    assert switches == enabled
    assert setup.options | {
        "trt_profile_min_shapes": "input_ids:1x16,attention_mask:1x16",
        "trt_profile_opt_shapes": "input_ids:2x32,attention_mask:2x32",
        "trt_profile_max_shapes": "input_ids:4x32,attention_mask:4x32",
        "trt_engine_cache_enable": "True", "trt_engine_cache_path": "engines",
        "trt_timing_cache_enable": "True", "trt_timing_cache_path": "timings",
        "trt_cuda_graph_enable": "True", "trt_builder_optimization_level": "5", "trt_max_workspace_size": "2097152",
        "device_id": "0", "user_compute_stream": "7", "has_user_compute_stream": "1",
    } == setup.options  # fmt: skip
    assert setup.fallback == {
        "device_id": "0", "user_compute_stream": "7", "use_tf32": "1" if precision == "tf32" else "0",
    }  # fmt: skip


def test_options_of_tensorrt_rtx() -> None:
    setup = setup_of(spec("nv_tensorrt_rtx", workspace_mb=1), 7, False, PLACE)
    assert setup.options == {
        "user_compute_stream": "7", "has_user_compute_stream": "1", "enable_cuda_graph": "0",
        "nv_runtime_cache_path": "kernels", "nv_max_workspace_size": "1048576",
        "nv_profile_min_shapes": "input_ids:1x16,attention_mask:1x16",
        "nv_profile_opt_shapes": "input_ids:2x32,attention_mask:2x32",
        "nv_profile_max_shapes": "input_ids:4x32,attention_mask:4x32",
    }  # fmt: skip


@pytest.mark.parametrize(("precision", "hint"), [("fp32", "f32"), ("int8", "f32"), ("bf16", "bf16")])
def test_options_of_openvino(precision: str, hint: str) -> None:
    setup = setup_of(replace(on_cpu("openvino", precision), threads=2), 0, False, None)
    assert json.loads(setup.options.pop("load_config")) == {"CPU": {"INFERENCE_PRECISION_HINT": hint}}
    assert setup.options == {"num_streams": "1", "num_of_threads": "2"}


def test_the_default_provider_has_the_options_of_older_releases_of_the_suite() -> None:
    on_gpu = setup_of(spec("auto", "tf32"), 7, True, None)
    assert (on_gpu.facts.name, on_gpu.fallback) == ("CUDAExecutionProvider", None)
    assert on_gpu.options == {"device_id": "0", "user_compute_stream": "7", "use_tf32": "1", "enable_cuda_graph": "1"}
    assert setup_of(on_cpu("auto"), 0, False, None).options == {}


@pytest.mark.parametrize(
    ("precision", "types", "quantized"),
    [("fp32", "fp32", ""), ("fp16", "fp16", ""), ("int8", "fp16", "int8"), ("fp8", "fp16", "fp8")],
)
def test_tensorrt_rtx_takes_the_types_from_the_graph(precision: str, types: str, quantized: str) -> None:
    form = OnnxRuntime().source_form(spec("nv_tensorrt_rtx", precision))
    assert (form.types, form.quantized) == (types, quantized)
    if precision != "fp8":
        form = OnnxRuntime().source_form(spec("tensorrt", precision))
        assert (form.types, form.quantized) == ("fp32", quantized)


class Placed:
    """Mock of a session with nodes on providers."""

    def __init__(self, **nodes: list[str]) -> None:
        self.parts = [
            SimpleNamespace(ep_name=name, get_nodes=lambda types=types: [SimpleNamespace(op_type=t) for t in types])
            for name, types in nodes.items()
        ]

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return self.parts


def test_nodes_are_counted_by_provider_in_the_session_that_leaves_most() -> None:
    best, worst = Placed(Trt=["MatMul"] * 3), Placed(Trt=["MatMul"], CPU=["Shape", "Shape"])
    sessions: Any = [best, worst, best]
    assert nodes_by_provider(sessions, "Trt") == ({"Trt": 1, "CPU": 2}, ["Shape"])
    assert nodes_elsewhere({PROVIDERS[Provider.tensorrt].name: 5, "CPUExecutionProvider": 2}, Provider.tensorrt) == 2


def test_a_plugin_that_does_not_load_is_unavailable_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = SimpleNamespace(get_library_path=lambda: "/no/such/library.so")
    monkeypatch.setattr(open_provider, "import_module", lambda name: missing)
    with pytest.raises(
        Unavailable, match=r"cannot load onnxruntime-ep-nv-tensorrt-rtx-cu13: .*; see the log"
    ) as refused:
        open_provider._plugin_device(PROVIDERS[Provider.nv_tensorrt_rtx], 0)
    assert "\n" not in str(refused.value)


def test_models_of_other_providers_are_not_exported() -> None:
    deployment: Any = SimpleNamespace(spec=on_cpu("openvino"))
    with pytest.raises(Unsupported, match=r"export the cell with ort.provider=auto, and name"):
        deploy_onnx.deploy_onnx(deployment)


def test_packages_of_providers_are_recorded() -> None:
    recorded = OnnxRuntime().also_recorded
    assert {"onnxruntime-ep-openvino", "onnxruntime-ep-nv-tensorrt-rtx-cu13", *TENSORRT_LIBRARIES} <= set(recorded)


Tiny = Callable[[str], tuple[Path, str]]


def outputs(requested: BuildSpec, folder: tuple[Path, str], cache: ArtifactCache) -> tuple[dict[str, Any], Any]:
    """Return the notes and the outputs of a session at two shapes and at the first one again."""
    backend = OnnxRuntime()
    backend.check(requested)
    source = prepare_source(*folder, backend.source_form(requested), requested.quantization, ["a line"], 0, cache)
    artifact = backend.build(requested, source)
    found = []
    with backend.open(requested, artifact) as session:
        for shape in (SHAPES[0], SHAPES[1], SHAPES[0]):
            ids = np.random.default_rng(shape.batch).integers(5, 400, (shape.batch, shape.sequence), np.int32)
            ones = np.ones_like(ids)
            session.load({"input_ids": ids, "attention_mask": ones, "token_type_ids": 0 * ones})
            session.step()
            found.append(np.array(session.fetch(), np.float32))
    return dict(artifact.notes), found


@pytest.mark.parametrize(
    ("provider", "precision", "least"),
    [
        ("cpu", "fp32", 0.999999),
        ("cpu", "int8", 0.98),
        ("openvino", "fp32", 0.999999),
        ("openvino", "bf16", 0.999),
        ("openvino", "int8", 0.98),
    ],
)
def test_a_named_provider_runs_the_graph(
    provider: str, precision: str, least: float, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    if provider == "openvino" and not find_spec("onnxruntime_ep_openvino"):
        pytest.skip("onnxruntime-ep-openvino is not installed")
    if precision == "bf16" and not provider_checks.BF16_FEATURES & set(cpu().device.features):
        pytest.skip("this CPU has no BF16")
    base = BuildSpec(precision, cpu().device, SHAPES, False, tmp_path, options(provider=provider), INT8, threads=1)
    reference = replace(base, precision="fp32", options=options())
    if provider == "openvino" and "GenuineIntel" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"):
        for _ in range(2):
            with pytest.raises(Unavailable, match="finds 0 CPUs that it supports here"):
                outputs(base, tiny("bert"), shared_cache)
        return
    _, expected = outputs(reference, tiny("bert"), shared_cache)
    notes, found = outputs(base, tiny("bert"), shared_cache)
    for got, wanted in zip(found, expected, strict=True):
        a, b = got.ravel(), wanted.ravel()
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= least
    name = PROVIDERS[Provider[provider]].name
    assert notes["provider"] == name
    assert notes["nodes_by_provider"][name] > 10
    assert (notes["operators_elsewhere"] == []) == (notes["nodes_by_provider"].keys() == {name})
    assert provider_of(base) is Provider[provider]


def test_a_cell_of_a_missing_provider_is_unavailable_and_says_what_to_install(
    fast_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = lambda packages: {name: "1" for name in packages if "openvino" not in name}  # noqa: E731
    monkeypatch.setattr(provider_checks, "versions_of", installed)
    model = ("weights=random", "model.architecture={model_type: bert}")
    ran = fast_cli("backend=ort", "ort.provider=openvino", "device=cpu", *model)
    assert "unavailable" in ran.stdout
    text = " ".join(table_in(tmp_path / "results", "latency").read_text(encoding="utf-8").split())
    assert "pip install onnxruntime-ep-openvino" in text


class FakeEngineSession(Placed):
    """Mock of a session of a provider with engines: it ran at some shapes, and has two nodes on the CPU."""

    def __init__(self, name: str) -> None:
        super().__init__(**{name: ["MatMul"] * 3, "CPUExecutionProvider": ["Shape"] * 2})
        self.ran: list[tuple[int, ...]] = []

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("input_ids", "attention_mask")]

    def run(self, outputs: None, feeds: dict[str, Any]) -> None:
        self.ran.append(feeds["input_ids"].shape)


@pytest.fixture
def engine_sessions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, str], FakeEngineSession]]:
    """Replace the sessions of a build. Each writes an engine; return their options."""
    made: list[tuple[dict[str, str], FakeEngineSession]] = []

    def opened(path: Path, options: Any, setup: Any, device: int) -> FakeEngineSession:
        if folder := setup.options.get("trt_engine_cache_path"):
            (Path(folder) / "part.engine").write_bytes(b"x" * 100)
        made.append((setup.options, FakeEngineSession(setup.facts.name)))
        return made[-1][1]

    monkeypatch.setattr(provider_build, "open_provider", opened)
    monkeypatch.setattr(provider_build, "_stream", lambda spec: SimpleNamespace(handle=7))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    return made


@pytest.mark.parametrize("provider", ["tensorrt", "nv_tensorrt_rtx"])
def test_each_profile_is_compiled_once_and_its_files_are_in_the_cache(
    provider: str, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    engine_sessions: list[tuple[dict[str, str], FakeEngineSession]],
) -> None:  # fmt: skip
    requested = replace(spec(provider), cache=tmp_path)
    graph = export_onnx(*tiny("bert"), shared_cache)
    artifact = provider_build.build_with_provider(requested, graph)
    name = PROVIDERS[Provider[provider]].name
    assert artifact.notes["nodes_by_provider"] == {name: 3, "CPUExecutionProvider": 2}
    assert artifact.notes["operators_elsewhere"] == ["Shape"]
    assert artifact.notes["profiles"] == ["1x16", "4x32"]
    assert [session.ran for _, session in engine_sessions] == [[(1, 16)], [(4, 32)]]
    prefix = "trt" if provider == "tensorrt" else "nv"
    shapes = [given[f"{prefix}_profile_max_shapes"].split(",") for given, _ in engine_sessions]
    assert shapes == [[f"{n}:{shape}" for n in ("input_ids", "attention_mask", "token_type_ids")] for shape in SHAPES]
    if provider == "tensorrt":
        assert artifact.notes["engine_bytes"] == 200
        assert {Path(given["trt_timing_cache_path"]).parent for given, _ in engine_sessions} == {tmp_path / "timing"}
    assert provider_build.build_with_provider(requested, graph).sha256 == artifact.sha256
    assert len(engine_sessions) == 2
    settings = []
    monkeypatch.setattr(provider_build, "OrtSession", lambda spec, path, given: settings.append(given))
    parts = [part for part, _ in provider_build.opening(replace(requested, shapes=SHAPES[:1]), artifact)]
    assert parts == ["profile 1x16", "sessions"]
    assert not settings[0].graph
    assert settings[0].no_graph == f"2 nodes are not on {name}, and a CUDA graph needs all"
    assert settings[0].place.profile.max == SHAPES[0]
    assert settings[0].place.kernels.is_relative_to(tmp_path / "runtime")
    assert len(settings[0].graph_keys) == (1 if provider == "tensorrt" else 2)


@pytest.mark.parametrize(("precision", "override"), [("fp32", "0"), ("tf32", ""), ("fp16", "")])
def test_engines_of_fp32_do_not_compute_in_tf32(
    precision: str, override: str, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path,
    engine_sessions: list[tuple[dict[str, str], FakeEngineSession]],
) -> None:  # fmt: skip
    """The provider has no option for it, so the variable that NVIDIA's libraries read is set in the process."""
    requested = replace(spec("tensorrt", precision), cache=tmp_path)
    provider_build.build_with_provider(requested, export_onnx(*tiny("bert"), shared_cache))
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == override


def test_a_row_says_how_many_nodes_fall_back(make_record: Any) -> None:
    record = make_record()
    notes = BuiltNotes(
        provider="TensorrtExecutionProvider",
        nodes_by_provider={"TensorrtExecutionProvider": 1200, "CPUExecutionProvider": 2, "CUDAExecutionProvider": 1},
    )
    built = replace(record, artifacts=Artifacts(built=BuiltFile(notes=notes)))
    assert nodes_fallen_back(built) == "3 of 1,203 nodes fall back: 2 on CPU, 1 on CUDA"
    assert nodes_fallen_back(record) == ""
    assert Record.from_json(built.to_json() | {"digest": digest_of(built.to_json())}).artifacts.built_notes == notes
