"""Sessions on the CPU: correct outputs at every shape, with and without padding, in a sequence of shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Backend, BuildSpec, Device, Shape, Source, SourceForm, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.json_codec import from_json
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions, Scheme
from backends.registry import describe, descriptions, load_backend
from backends.torch_.description import CompileOptions
from suites.measuring.output_difference import compare_with_reference

SHAPES = (Shape(1, 8), Shape(4, 24), Shape(12, 16), Shape(1, 8))
TEXTS = ["a line", "another line", "a third"]
INT8 = QuantizationOptions(
    placement=Placement.gemm, samples=8, sequence=24, activation=Activation.uint8, reduce_range=Switch.on
)

Tiny = Callable[[str], tuple[Path, str]]


def spec(backend: str, precision: str, cache: ArtifactCache, **options: Any) -> BuildSpec:
    typed = from_json(describe(backend).options, options)
    return BuildSpec(precision, Device(), SHAPES, False, cache.root, typed, INT8, threads=1)


@pytest.mark.parametrize(
    ("backend", "precision", "least", "options"),
    [
        ("torch_eager", "fp32", 0.99999, {}),
        ("torch_eager", "bf16", 0.999, {}),
        ("torch_packed", "fp32", 0.99999, {}),
        ("torch_packed", "bf16", 0.999, {}),
        ("torch_packed", "fp32", 0.99999, {"pad_to_multiple_of": 7}),
        ("ort", "fp32", 0.99999, {}),
        ("ort", "fp32", 0.99999, {"fusion": "on"}),
        ("ort", "int8", 0.98, {}),
    ],
)
@pytest.mark.parametrize("distribution", ["full", "uniform"])
def test_outputs_match_the_reference(
    backend: str, precision: str, least: float, options: dict[str, Any], distribution: str,
    tiny: Tiny, shared_cache: ArtifactCache,
) -> None:  # fmt: skip
    folder, sha256 = tiny("bert")
    lengths = Lengths(distribution, "random", 3)
    inputs = prepare_inputs(InputSource(folder, sha256, lengths, TEXTS, 0, "cpu", shared_cache), sorted(set(SHAPES)))
    loaded, requested = load_backend(backend), spec(backend, precision, shared_cache, **options)
    source = Source(folder, sha256)
    if backend in ("ort", "torch_packed"):
        form = loaded.source_form(requested)
        source = prepare_source(folder, sha256, form, requested.quantization, TEXTS, 0, shared_cache)
    arrays = np.load(inputs.path)
    with loaded.open(requested, loaded.build(requested, source)) as session:
        for shape in SHAPES:
            names = [name for name in arrays.files if name.startswith(f"{shape}/")]
            inputs_of_shape = [name for name in names if not name.endswith(("reference", "rows"))]
            feeds = {name.split("/")[1]: arrays[name] for name in inputs_of_shape}
            session.load(feeds)
            session.step()
            session.wait()
            check = compare_with_reference(
                session.fetch(), arrays[f"{shape}/reference"], arrays[f"{shape}/rows"], feeds["attention_mask"]
            )
            assert check.nonfinite == 0
            assert check.cosine is not None
            assert check.cosine >= least
        with pytest.raises(Unsupported, match="GPU"):
            session.capture()


def test_each_load_of_the_same_shape_gives_its_own_outputs(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)
    ones = np.ones((2, 8), np.int32)
    for name in ("torch_eager", "ort"):
        backend, requested = load_backend(name), spec(name, "fp32", shared_cache)
        outputs = []
        with backend.open(requested, backend.build(requested, Source(folder, sha256, onnx))) as session:
            for ids in (ones * 7, ones * 9, ones * 7):
                session.load({"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})
                session.step()
                session.wait()
                outputs.append(session.fetch().copy())
        np.testing.assert_array_equal(outputs[0], outputs[2])
        assert np.abs(outputs[0] - outputs[1]).max() > 0.1


GPU = Device("cuda", 0, "NVIDIA Old", "GPU-0", (7, 5))


@pytest.mark.parametrize(
    ("backend", "precision", "device", "message"),
    [
        ("torch_eager", "int8", Device(), "backend=ort"),
        ("torch_eager", "tf32", Device(), "precision=fp32"),
        ("torch_eager", "bf16", GPU, "compute capability 8.0"),
        ("torch_compile", "tf32", GPU, "compute capability 8.0"),
        ("ort", "bf16", GPU, "no bfloat16"),
        ("ort", "fp8", GPU, "backend=trt"),
        ("ort", "int8", GPU, "scheme=explicit"),
        ("ort", "fp16", Device(), "CUDA provider"),
        ("ort", "tf32", Device(), "CUDA provider"),
        ("ort", "tf32", GPU, "compute capability 8.0"),
    ],
)
def test_unsupported_precisions_are_refused_with_advice(
    backend: str, precision: str, device: Device, message: str, tmp_path: Path
) -> None:
    implicit = QuantizationOptions(scheme=Scheme.implicit)
    requested = BuildSpec(precision, device, SHAPES, False, tmp_path, describe(backend).options(), implicit)
    with pytest.raises(Unsupported, match=message):
        load_backend(backend).check(requested)


def test_compiling_without_a_compiler_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"install g\+\+"):
        load_backend("torch_compile").check(BuildSpec("fp32", Device(), SHAPES, False, tmp_path, CompileOptions()))


@pytest.mark.parametrize("name", descriptions())
def test_a_backend_has_only_the_methods_of_the_interface(name: str) -> None:
    """A method whose name differs from that of the interface is never called, and the default runs in its place."""
    for kind in type(load_backend(name)).__mro__:
        if issubclass(kind, Backend) and kind is not Backend and kind.__name__ != "TensorRTBackend":
            public = {method for method in vars(kind) if not method.startswith("_")}
            assert public <= {*dir(Backend), "layout", "api", "engine"}


def test_int8_of_onnxruntime_builds_from_a_quantized_graph(tmp_path: Path) -> None:
    for precision in ("fp32", "int8"):
        requested = BuildSpec(precision, Device(), SHAPES, False, tmp_path, describe("ort").options())
        assert load_backend("ort").source_form(requested) == SourceForm(quantized=precision.replace("fp32", ""))
