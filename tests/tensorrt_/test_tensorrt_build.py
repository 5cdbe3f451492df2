"""Results and errors of a build, with a mock of TensorRT."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from fake_api import fake_api

from backends.base import BuildSpec, Device, Shape, Unavailable, Unsupported
from backends.tensorrt_.build import build, progress
from backends.tensorrt_.build.build_log import BuildLog
from backends.tensorrt_.build.durations import BuildKind, estimated_seconds, note_seconds
from backends.tensorrt_.build.inspection import product_types
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.runtime.loading import load_plugins, read_plan
from backends.tensorrt_.runtime.log import Log
from backends.tensorrt_.runtime.tensorrt_options import Engines, TensorRTOptions

OPTIONS = TensorRTOptions(min=[1, 8], opt=[2, 8], max=[2, 8])
SPEC = BuildSpec("fp16", Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0)), (Shape(2, 8),), True, Path("c"), OPTIONS)


class Stage:
    """Simulated environment of a build: plans from the builder, whether each one opens, and bytes of free memory."""

    def __init__(self) -> None:
        self.plans: list[bytes | None] = [b"plan"]
        self.opening: list[bool] = [True]
        self.free = 100 << 30
        self.errors: list[str] = []
        self.estimates: list[tuple[str, float | None]] = []
        self.notes: list[tuple[BuildKind, float]] = []
        self.opening_error = "the process ended at profile 1"
        self.config = MagicMock()
        self.config.add_optimization_profile.return_value = 0
        self.builder = MagicMock()
        self.builder.create_network.return_value.num_layers = 7
        self.builder.create_builder_config.return_value = self.config
        self.builder.build_serialized_network.side_effect = lambda *_: self.plans.pop(0)
        self.api = fake_api()
        self.api.trt.Builder.return_value = self.builder

    def faults(self) -> list[str]:
        return [] if self.opening.pop(0) else [self.opening_error]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    simulated = Stage()
    watch = SimpleNamespace(
        enter=lambda phase, seconds=None: simulated.estimates.append((phase, seconds)),
        notes=lambda early: {},
        seconds_in=lambda phase: 12.5,
    )
    log = SimpleNamespace(
        logger=None, errors=simulated.errors, peak_bytes=0, lines=list,
        last_error=lambda: (simulated.errors or ["no reason"])[-1],
    )  # fmt: skip
    replaced = {
        "use_device": lambda index: None, "free_memory": lambda: simulated.free, "Log": lambda api: log,
        "BuildMonitor": lambda phase, on_gpu: nullcontext(watch), "find_faults": lambda *_: simulated.faults(),
        "load_plugins": lambda *_: None, "write_layers": lambda *_: {}, "load_timings": lambda *_: True,
        "save_timings": lambda *_: None, "estimated_seconds": lambda path, kind: 40.0,
        "note_seconds": lambda path, kind, seconds: simulated.notes.append((kind, seconds)),
    }  # fmt: skip
    for name, value in replaced.items():
        monkeypatch.setattr(build, name, value)
    return simulated


def built(stage: Stage, tmp_path: Path, **options: Any) -> bytes:
    layout: Any = SimpleNamespace(sizes=lambda profile: {})
    spec = replace(SPEC, options=replace(OPTIONS, **options))
    build.build_plan(stage.api, spec, tmp_path / "plan", lambda target: (layout, {}))
    return (tmp_path / "plan").read_bytes()


def test_a_plan_that_opens_is_kept(stage: Stage, tmp_path: Path) -> None:
    assert built(stage, tmp_path) == b"plan"
    assert not stage.config.set_timing_cache.called


def test_the_seconds_of_a_build_are_noted_by_its_kind(stage: Stage, tmp_path: Path) -> None:
    built(stage, tmp_path)
    assert ("building", 40.0) in stage.estimates
    assert stage.notes == [(BuildKind("fp16", 7, 1, 3, True), 12.5)]


def test_a_plan_that_does_not_open_is_built_again_with_new_timings(stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.opening = [b"broken", b"whole"], [False, True]
    assert built(stage, tmp_path) == b"whole"
    assert stage.config.set_timing_cache.call_count == 1


def test_a_plan_that_does_not_open_for_lack_of_memory_is_not_built_again(stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.opening, stage.opening_error = [b"whole"], [False], "Requested 5 GB; Out of memory"
    with pytest.raises(RuntimeError, match="too little GPU memory to build"):
        built(stage, tmp_path)


def test_a_build_notes_the_time_of_its_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "free_memory", lambda: 1 << 30)
    wall, processor = iter([10.0, 13.0, 17.5, 18.0]), iter([1.0, 5.25])
    clocks = SimpleNamespace(perf_counter=wall.__next__, process_time=processor.__next__)
    monkeypatch.setattr(progress, "time", clocks)
    with progress.BuildMonitor("waiting") as watch:
        watch.enter("working", 40.0)
        watch.detail = lambda: "layer 2 of up to 9, 0/up (CaskConvolution)"
        assert watch.text(5) == "working, 5 of about 43 s: layer 2 of up to 9, 0/up (CaskConvolution)"
        watch.enter("ending")
        assert watch.text(6) == "ending, 6 s: layer 2 of up to 9, 0/up (CaskConvolution)"
    assert watch.notes()["phases_s"] == [("waiting", 3.0), ("working", 4.5), ("ending", 0.5)]
    assert watch.seconds_in("working") == 4.5
    assert watch.notes()["processor_s"] == 4.25


def test_an_estimate_comes_from_the_last_build_of_this_kind_or_from_other_profiles(tmp_path: Path) -> None:
    path, kind = tmp_path / "timing" / "seconds.json", BuildKind("fp16", 100, 4, 3, False)
    assert estimated_seconds(path, kind) is None
    note_seconds(path, replace(kind, profiles=2), 30.0)
    assert estimated_seconds(path, kind) == 60.0
    for seconds in (90.0, 80.0):
        note_seconds(path, kind, seconds)
    assert estimated_seconds(path, kind) == 80.0
    assert estimated_seconds(path, replace(kind, warm=True)) is None
    assert estimated_seconds(path, replace(kind, layers=50)) is None
    path.write_text("[damaged")
    assert estimated_seconds(path, kind) is None
    note_seconds(path, kind, 70.0)
    assert estimated_seconds(path, kind) == 70.0


def test_the_log_of_a_build_gives_profile_layer_and_share() -> None:
    """The messages have the form of TensorRT 8.6's verbose log."""
    reader = BuildLog()
    assert reader.text == ""
    for message in (
        "After vertical fusions: 12 layers", "After final dead-layer removal: 9 layers",
        "Constructing optimization profile number 1 [2/4].",
        "--------------- Timing Runner: 0/up + 0/gelu (CaskConvolution[0x80000009])",
        "Tactic: 0x0000000000000001 Time: 0.05",
        "--------------- Timing Runner: 0/up + 0/gelu (CaskGemmConvolution[0x80000018])",
    ):  # fmt: skip
        reader.read(message)
    assert reader.text == "profile 2 of 4, layer 1 of up to 9, 0/up + 0/gelu (CaskGemmConvolution)"
    reader.read("--------------- Timing Runner: PWN(a) (PointWiseV2[0x80000028])")
    assert reader.text == "profile 2 of 4, layer 2 of up to 9, PWN(a) (PointWiseV2)"
    reader.read(
        "Timing Runner: 0/up + PWN((Unnamed Layer* 6) [Constant], (Unnamed Layer* 7)) (CaskConvolution[0x80000009])"
    )
    assert reader.text.endswith(", 0/up + PWN((Unnamed Layer* 6) [Constant]... (CaskConvolution)")
    reader.read("Constructing optimization profile number 2 [3/4].")
    reader.read("Timing Runner: PWN(a) (PointWiseV2)")
    assert reader.text == "profile 3 of 4, layer 1 of up to 9, PWN(a) (PointWiseV2)"


def test_releases_without_a_monitor_report_by_their_log_and_others_by_the_monitor() -> None:
    watch, config = SimpleNamespace(phase="", detail=str), MagicMock()
    api = fake_api()
    log = Log(api)
    progress.monitor(api, config, watch, log)  # type: ignore[arg-type]
    assert log.listener is not None
    log.listener("Timing Runner: a (Kind)")
    assert watch.detail() == "a (Kind)"
    api = fake_api({"progress"})
    log = Log(api)
    progress.monitor(api, config, watch, log)  # type: ignore[arg-type]
    assert log.listener is None
    reporter = config.progress_monitor
    reporter.phase_start("Building engine", None, 4)
    reporter.phase_start("Tactic selection", "Building engine", 10)
    reporter.phase_start("layer 0/up", "Tactic selection", 3)
    assert reporter.step_complete("Building engine", 1)
    assert (watch.phase, watch.detail()) == ("Building engine 25%", "layer 0/up")
    reporter.phase_finish("layer 0/up")
    assert watch.detail() == "Tactic selection"


def test_products_are_counted_by_the_type_that_they_multiply() -> None:
    """The names of the kernels are from profiles under results/reference."""
    names = [
        "sm90_xmma_fprop_implicit_gemm_i8f32_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_nchw_tilesize64x256x64",
        "sm80_xmma_fprop_implicit_gemm_interleaved_i8f16_i8i32_f32_nchw_vect_c_32kcrs_vect_c_32_tilesize128x256x64",
        "sm90_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize128x256x32_cgasize2x1x1_warpgroupsize1x1x1_beta0",
        "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32",
    ]
    layers = [
        "a layer with only a name",
        {"LayerType": "NoOp"},
        {"LayerType": "PointWiseV2", "TacticName": "generatedNativePointwise"},
        {"LayerType": "CudnnConvolution", "TacticName": "ampere_h16816gemm_128x64_ldg8_nn"},
        *({"LayerType": "CaskConvolution", "TacticName": name} for name in names),
    ]
    assert product_types(layers) == {"other": 1, "i8": 2, "f16": 1, "f32": 1}


@pytest.mark.parametrize(("threads", "given"), [(0, False), (8, True)])
def test_the_builder_gets_the_number_of_threads(threads: int, given: bool, stage: Stage, tmp_path: Path) -> None:
    stage.builder.max_threads = None
    built(stage, tmp_path, builder_threads=threads)
    assert stage.builder.max_threads == (threads if given else None)


def test_the_tactic_heuristic_needs_a_release_with_it(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"trt.tactic_heuristic needs TensorRT 8.6"):
        built(stage, tmp_path, tactic_heuristic=True)
    stage.api = fake_api({"tactic_heuristic"}, module=stage.api.trt)
    built(stage, tmp_path, tactic_heuristic=True)
    flag = stage.api.trt.BuilderFlag.ENABLE_TACTIC_HEURISTIC
    assert flag in [call.args[0] for call in stage.config.set_flag.call_args_list]


@pytest.mark.parametrize(("shares", "has_setting"), [(True, True), (True, False), (False, True)])
def test_contexts_of_a_shared_engine_may_use_the_same_profile(
    shares: bool, has_setting: bool, stage: Stage, tmp_path: Path
) -> None:
    stage.api = fake_api({"profile_sharing"} if has_setting else set(), module=stage.api.trt)
    built(stage, tmp_path, share_engine=shares)
    feature = stage.api.trt.PreviewFeature.PROFILE_SHARING_0806
    expected = [((feature, True), {})] if shares and has_setting else []
    assert stage.config.set_preview_feature.call_args_list == expected


def test_a_refused_profile_fails_with_the_reason(stage: Stage, tmp_path: Path) -> None:
    stage.config.add_optimization_profile.return_value = -1
    stage.errors += ["the profile has no opt"]
    with pytest.raises(RuntimeError, match=r"refuses the profile .* no opt"):
        built(stage, tmp_path)


def test_a_failed_creation_of_the_builder_has_its_reason(stage: Stage, tmp_path: Path) -> None:
    stage.api.trt.Builder.side_effect = TypeError("pybind11::init(): factory function returned nullptr")
    stage.errors += ["CUDA initialization failure with error: 2 (out of memory)"]
    with pytest.raises(RuntimeError, match="too little GPU memory to build: "):
        built(stage, tmp_path)


def test_a_plan_that_never_opens_fails_with_the_last_error(stage: Stage, tmp_path: Path) -> None:
    stage.plans, stage.opening = [b"broken", b"broken"], [False, False]
    stage.opening_error = "the process ended at profile 1 (missing offset)"
    message = r"the engine twice and could not open it: the process ended at profile 1 \(missing offset\)"
    with pytest.raises(RuntimeError, match=message):
        built(stage, tmp_path)


def test_a_missing_lean_runtime_is_named(stage: Stage, tmp_path: Path) -> None:
    stage.plans = [None]
    stage.errors += ["Error Code 6: Internal Error (Unable to load library: libnvinfer_lean.so.8.6.0)"]
    with pytest.raises(Unavailable, match="install tensorrt-lean"):
        built(stage, tmp_path)


@pytest.mark.parametrize(
    ("free", "error", "message"),
    [
        (1 << 30, "Cuda Runtime (invalid resource handle)", "too little GPU memory to build: 1024 MiB were free"),
        (100 << 30, "Out of memory", "too little GPU memory"),
        (100 << 30, "CUDA: cudaErrorMemoryAllocation", "too little GPU memory"),
        (100 << 30, "no such kernel", "could not build the engine: no such kernel"),
        (100 << 30, "an illegal memory access was encountered", "could not build the engine: an illegal memory"),
    ],
)
def test_a_build_without_a_plan_has_its_reason(
    free: int, error: str, message: str, stage: Stage, tmp_path: Path
) -> None:
    stage.plans, stage.free = [None], free
    stage.errors += [error]
    with pytest.raises(RuntimeError, match=message):
        built(stage, tmp_path)


@pytest.mark.parametrize("compatible", [True, False])
def test_host_code_in_a_plan_is_allowed_only_for_version_compatible_engines(compatible: bool) -> None:
    api = fake_api()
    read_plan(api, b"plan", TensorRTOptions(version_compatible=compatible), Log(api))
    assert api.trt.Runtime.return_value.engine_host_code_allowed is compatible


def test_a_library_is_loaded_once_and_a_broken_one_is_refused() -> None:
    api = fake_api()
    load = api.trt.get_plugin_registry.return_value.load_library
    load.side_effect = lambda path: None if "broken" in path or load.call_count > 1 else object()
    for _ in range(2):
        load_plugins(api, TensorRTOptions(plugin_libraries=["/lib/fine.so"]), Log(api))
    assert load.call_count == 1
    with pytest.raises(Unsupported, match=r"TensorRT 8.6.0 cannot load /lib/broken.so"):
        load_plugins(api, TensorRTOptions(plugin_libraries=["/lib/broken.so"]), Log(api))


def test_the_log_keeps_warnings_errors_the_last_node_and_the_peak(capfd: pytest.CaptureFixture[str]) -> None:
    api = fake_api()
    levels = {name: SimpleNamespace(name=name) for name in ("VERBOSE", "INFO", "WARNING", "ERROR")}
    api.trt.ILogger = type("ILogger", (), levels)
    log = Log(api)
    for level, message in (
        ("VERBOSE", "Parsing node: first [Gemm]"), ("VERBOSE", "other"), ("WARNING", "twice"), ("WARNING", "twice"),
        ("INFO", "Peak memory usage of TRT CPU/GPU memory allocators: CPU 1 MiB, GPU 3 MiB"), ("ERROR", "an\nerror"),
    ):  # fmt: skip
        log.logger.log(levels[level], message)
    assert (log.last_node, log.peak_bytes, log.last_error()) == ("first [Gemm]", 3 << 20, "an error")
    assert log.lines() == ["WARNING: twice (2 times)", "ERROR: an\nerror"]
    assert log.lines(1) == ["WARNING: twice (2 times)", "and 1 more"]
    assert "Parsing" not in capfd.readouterr().err


def test_a_builder_that_started_early_builds_and_its_start_is_a_phase_of_the_build(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall, processor = iter([10.0, 21.5, 50.0, 51.0, 54.0, 55.0]), iter([1.0, 12.0, 14.0, 18.0])
    monkeypatch.setattr(build, "BuildMonitor", progress.BuildMonitor)
    monkeypatch.setattr(progress, "free_memory", lambda: 1 << 30)
    clocks = SimpleNamespace(perf_counter=wall.__next__, process_time=processor.__next__)
    monkeypatch.setattr(progress, "time", clocks)
    monkeypatch.setattr(build, "monitor", lambda *_: None)
    early = build.start_early(stage.api, SPEC)
    assert stage.api.trt.Builder.call_count == 1
    assert not stage.builder.create_network.called
    layout: Any = SimpleNamespace(sizes=lambda profile: {})
    notes = build.build_plan(stage.api, SPEC, tmp_path / "plan", lambda target: (layout, {}), early)
    assert stage.api.trt.Builder.call_count == 1
    assert (tmp_path / "plan").read_bytes() == b"plan"
    assert notes["phases_s"] == [
        ("starting the builder", 11.5), ("defining the network", 1.0),
        ("building", 3.0), ("opening what was built", 1.0),
    ]  # fmt: skip
    assert (notes["started_early_s"], notes["processor_s"]) == (11.5, 15.0)


def test_a_builder_does_not_start_early_if_the_export_may_need_the_memory(stage: Stage) -> None:
    stage.free = (4 << 30) - 1
    with pytest.raises(Unavailable, match="4095 MiB of GPU memory are free"):
        build.start_early(stage.api, SPEC)
    assert not stage.api.trt.Builder.called
    stage.free += 1
    assert build.start_early(stage.api, SPEC).builder is stage.builder


def test_the_first_of_several_engines_uses_the_builder_that_started_early(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    used: list[object] = []

    def build_plan(api: object, spec: BuildSpec, path: Path, define: object, early: object) -> dict[str, object]:
        used.append(early)
        path.write_bytes(b"plan")
        return {"profiles": []}

    monkeypatch.setattr(build, "start_early", lambda api, spec: "early")
    monkeypatch.setattr(build, "build_plan", build_plan)
    options = replace(OPTIONS, engines=Engines.per_shape)
    spec = replace(SPEC, cache=tmp_path, shapes=(Shape(1, 8), Shape(2, 8)), options=options)
    backend = TensorRT(fake_api)
    backend.start_builder(spec)
    assert used == []
    backend.engine(spec, {"onnx": "0"}, MagicMock())
    assert used == ["early", None]
