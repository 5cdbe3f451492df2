"""Backend `trt` without TensorRT: refusals, advice on missing packages, and the requested ONNX export."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import PYTHON_WITH_TENSORRT, ROOT
from fake_api import fake_api
from omegaconf import OmegaConf

from backends.base import BuildSpec, Device, Shape, SourceForm, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.json_codec import from_json
from backends.onnx_.onnx_source import prepare_source
from backends.quantization_options import Activation, Placement, QuantizationOptions, Scheme
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.runtime import installation
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions
from suites import worker
from suites.asking import chosen_machine, request
from suites.asking.request import resolve
from suites.measuring.machine import Machine
from suites.running.job import ProbeJob
from suites.schema.refusals import Refused
from suites.schema.run_schema import run_schema

H200 = Device("cuda", 0, "NVIDIA H200", "GPU-0", (9, 0), driver="580.1")
SHAPES = (Shape(1, 128), Shape(8, 384), Shape(8, 128))
OPTIONS = {"min": [1, 16], "opt": [8, 384], "max": [8, 384]}
MODERN = {"strong_typing", "bfloat16", "opset_19", "progress", "named_parser_errors"}
RELEASES = {
    "8.6.0": {"explicit_batch", "weak_typing", "calibration", "memory_size_v1"},
    "10.16.1": {"explicit_batch", "weak_typing", "calibration", "memory_size_v1"} | MODERN,
    "11.4.0": MODERN,
}


def spec(precision: str = "fp16", device: Device = H200, scheme: str = "", **options: Any) -> BuildSpec:
    quantization = QuantizationOptions(scheme=Scheme[scheme or "explicit"])
    return BuildSpec(precision, device, SHAPES, True, Path("cache"), typed(**options), quantization)


def typed(**options: Any) -> TensorRTOptions:
    return from_json(TensorRTOptions, {**OPTIONS, **options})


def backend_of(version: str) -> TensorRT:
    """Return the backend in an interpreter with that release of TensorRT."""
    return TensorRT(lambda: fake_api(RELEASES[version], version))


def test_refusal_of_a_shape_outside_every_profile_lists_the_profiles() -> None:
    with pytest.raises(Unsupported, match=r"shape 8x384 is in no .* \(1x16..4x384\); widen trt.min and trt.max"):
        backend_of("8.6.0").check(spec(profiles="dynamic", max=[4, 384], opt=[4, 384]))


@pytest.mark.parametrize(
    ("version", "requested", "message"),
    [
        ("8.6.0", spec("bf16"), "no BF16; use precision=fp16"),
        ("8.6.0", spec("fp8"), "opset 17"),
        ("11.4.0", spec("int8", scheme="implicit"), "no calibrator"),
        ("11.4.0", spec(types="flags"), "types from the graph only"),
        ("10.16.1", spec("int8", scheme="implicit", types="graph"), "no calibrator"),
        ("10.16.1", spec("fp8", replace(H200, compute_capability=(8, 0))), "compute capability 8.9"),
        ("10.16.1", spec("tf32", replace(H200, compute_capability=(7, 5))), "compute capability 8.0"),
        ("10.16.1", spec("fp8", scheme="implicit"), "for INT8"),
    ],
)
def test_features_that_a_release_lacks_are_refused(version: str, requested: BuildSpec, message: str) -> None:
    with pytest.raises(Unsupported, match=message):
        backend_of(version).check(requested)


@pytest.mark.parametrize(
    ("version", "requested", "form"),
    [
        ("8.6.0", spec("fp16", keep_fp32=["*Norm*"]), SourceForm()),
        ("8.6.0", spec("int8"), SourceForm(quantized="int8")),
        ("8.6.0", spec("int8", types="graph"), SourceForm(types="fp16", quantized="int8")),
        ("8.6.0", spec("int8", scheme="implicit"), SourceForm(calibration=True)),
        ("10.16.1", spec("bf16"), SourceForm()),
        ("10.16.1", spec("fp16", types="graph"), SourceForm(types="fp16")),
        ("11.4.0", spec("fp16", keep_fp32=["*Norm*"]), SourceForm(types="fp16", keep_fp32=("*Norm*",))),
        ("11.4.0", spec("bf16", rewrites=["merged_qkv"]), SourceForm(types="bf16", rewrites=("merged_qkv",))),
        ("11.4.0", spec("int8"), SourceForm(types="fp16", quantized="int8")),
        ("11.4.0", spec("fp8"), SourceForm(types="fp16", quantized="fp8")),
        ("11.4.0", spec("tf32"), SourceForm()),
    ],
)
def test_the_source_form_follows_from_release_and_precision(
    version: str, requested: BuildSpec, form: SourceForm
) -> None:
    backend = backend_of(version)
    backend.check(requested)
    assert backend.source_form(requested) == form


def test_a_batch_in_passes_needs_a_profile_for_one_pass_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "load_backend", lambda name: backend_of("8.6.0"))
    options = typed(profiles="dynamic", max=[2, 128], opt=[2, 128])
    requested = BuildSpec("fp16", H200, (Shape(8, 128),), True, Path(), options)
    assert "shape 8x128 is in no optimization profile" in worker.probe(ProbeJob("trt", requested)).reason
    assert worker.probe(ProbeJob("trt", requested, passes=4)).outcome == "ok"


def test_without_tensorrt_the_cell_is_unavailable_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "versions_of", lambda names: {})
    answer = worker.probe(ProbeJob("trt", BuildSpec("fp16", H200, (Shape(1, 128),), True, Path(), typed())))
    assert answer.outcome == "unavailable"
    assert "make trt86" in answer.reason
    assert "interpreter.trt" in answer.reason


@pytest.mark.parametrize("version", ["7.2.3", "8.5.1", "9.3.0", "12.0.1"])
def test_an_unsupported_release_is_unavailable(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "versions_of", lambda names: {"tensorrt": version})
    with pytest.raises(Unavailable, match=rf"TensorRT {version} is not supported .*8.6, 10, 11.*make trt86"):
        installation.available_api()


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        ("libcudnn.so.8: cannot open shared object file: No such file", "pip install 'nvidia-cudnn-cu12<9'"),
        ("libcublas.so.12: cannot open shared object file: No such file", "pip install nvidia-cublas-cu12"),
        ("No module named 'cuda'", "pip install 'cuda-python"),
        ("libnvinfer.so.10: file too short", "cannot be imported"),
    ],
)
def test_a_missing_library_is_named_with_its_package(error: str, advice: str) -> None:
    assert advice in installation.import_advice(error)


def request_on_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *overrides: str) -> request.Request:
    """Return a request for backend trt at one precision, for a simulated machine with an H200."""
    machine = Machine(H200, "nvidia-h200", {"uuid": "GPU-0"})
    monkeypatch.setattr(chosen_machine, "gpus", lambda: [machine])
    base = OmegaConf.structured(run_schema())
    own = [f"results={tmp_path}", f"cache={tmp_path}", "weights=random", "model.architecture={model_type: bert}"]
    own += ["backend=trt"]
    return resolve(OmegaConf.to_object(OmegaConf.merge(base, OmegaConf.from_dotlist([*own, *overrides]))))


def test_the_cell_names_the_file_of_calibration_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    default, with_file = (
        request_on_a_gpu(monkeypatch, tmp_path, "precision=int8", *more)
        for more in ((), ("task.calibration=suites/sentences.txt",))
    )
    assert with_file.cell["lengths"] == {**default.cell["lengths"], "calibration": "sentences.txt"}
    assert "calibration" not in default.cell["lengths"]


def test_a_request_resolves_profile_ranges_and_qdq_placement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    requested = request_on_a_gpu(
        monkeypatch, tmp_path, "precision=int8", "batch=[4,32]", "sequence=[64,384]", "profiles=dynamic"
    )
    assert requested.cell["options"]["profiles"] == "dynamic"
    assert [requested.cell["options"][name] for name in ("min", "opt", "max")] == [[1, 16], [32, 384], [32, 384]]
    assert requested.spec.quantization.placement is Placement.all_but_ffn_residual
    assert requested.spec.quantization.activation is Activation.int8
    assert requested.spec.device.driver == "580.1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trt.min=[1]", "trt.min=[1] must be a batch and a sequence length"),
        ("trt.min=[9,16]", "must not decrease; their batch is 9, 8, 8"),
        ("trt.opt=[1,400]", "must not decrease; their sequence is 16, 400, 128"),
        ("trt.optimization_level=6", "between 0 and 5"),
        ("trt.workspace_mb=-1", "trt.workspace_mb=-1 must be at least 0"),
        ("trt.timing_iterations=-1", "trt.timing_iterations=-1 must be at least 0"),
        ("trt.plugin_libraries=[no/such.so]", "no/such.so, which is not a file"),
        ("interpreter.trt=/no/python", "interpreter.trt=/no/python is not an executable Python"),
    ],
)
def test_bad_options_are_refused(override: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        request_on_a_gpu(monkeypatch, tmp_path, override)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("trt.refit=true", "trt.version_compatible=true"), "both refittable and version compatible"),
        (("precision=int8", "quantization.activation=uint8"), "TensorRT reads no zero points"),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    overrides: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(Refused, match=message):
        request_on_a_gpu(monkeypatch, tmp_path, *overrides)


def test_a_plugin_library_is_a_digest_in_the_cell_and_a_path_in_the_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "plugins.so"
    library.write_bytes(b"code")
    monkeypatch.chdir(tmp_path)
    requested = request_on_a_gpu(monkeypatch, tmp_path, "trt.plugin_libraries=[plugins.so]")
    assert requested.spec.options.plugin_libraries == [str(library)]
    assert requested.cell["options"]["plugin_libraries"] == ["plugins.so 5694d08a2e53ffca"]


def test_implicit_calibration_has_no_options_of_explicit_quantization(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requested = request_on_a_gpu(monkeypatch, tmp_path, "precision=int8", "quantization.scheme=implicit")
    assert set(requested.cell["options"]["quantization"]) == {"scheme", "method", "samples", "sequence"}


def test_other_packages_do_not_count_as_a_tensorrt_release(monkeypatch: pytest.MonkeyPatch, null_job: ProbeJob) -> None:
    monkeypatch.setattr(worker, "versions_of", lambda names: {n: "1" for n in names if n in ("cuda-python", "numpy")})
    monkeypatch.setattr(installation, "versions_of", lambda names: {})
    answer = worker.probe(replace(null_job, backend="trt", spec=replace(null_job.spec, options=typed())))
    assert (answer.release, answer.outcome) == ("", "unavailable")


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-cu12", "tensorrt-cu13"])
def test_tensorrt_is_found_under_each_distribution_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "versions_of", lambda names: {name: "10.16.1"} if name in names else {})
    assert installation.installed_release() == "10.16.1"


@pytest.mark.skipif(not PYTHON_WITH_TENSORRT, reason="no Python with TensorRT is named")
def test_every_module_imports_in_a_python_with_tensorrt_and_no_framework() -> None:
    files = (ROOT / "backends" / "tensorrt_").rglob("*.py")
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    code = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'transformers', 'suites'} & set(sys.modules)"
    )
    completed = subprocess.run([PYTHON_WITH_TENSORRT, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert completed.returncode == 0, completed.stderr


def test_calibration_inputs_of_the_source_have_one_shape(
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny("bert")
    sizes = QuantizationOptions(samples=12, sequence=40)
    source = prepare_source(folder, sha256, SourceForm(calibration=True), sizes, ["a line"], 0, shared_cache)
    assert source.calibration is not None
    arrays = np.load(source.calibration.path)
    ids, mask = arrays["input_ids"], arrays["attention_mask"]
    assert ids.shape == mask.shape
    assert ids.shape[:2] == (2, 8)
    assert ids.dtype == np.int32
    assert not ids[mask == 0].any()
    np.testing.assert_array_equal(ids[1, 4:], ids[0, :4])
