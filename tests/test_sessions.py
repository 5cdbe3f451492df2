"""Sessions on the CPU: correct outputs at every shape, with and without padding, in a sequence of shapes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Backend, BuildSpec, Device, Shape, Source, SourceForm, Unavailable, Unsupported
from backends.cache import ArtifactCache
from backends.description import SourceKind
from backends.inputs.batches import InputSource, prepare_inputs
from backends.inputs.lengths import Lengths
from backends.json_codec import from_json
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions, Scheme
from backends.registry import describe, descriptions, load_backend
from backends.torch_ import dynamic_linear
from backends.torch_.description import CompileOptions
from suites.measuring.machine import cpu
from suites.measuring.output_difference import compare_with_reference

SHAPES = (Shape(1, 8), Shape(4, 24), Shape(12, 16), Shape(1, 8))
TEXTS = ["a line", "another line", "a third"]
INT8 = QuantizationOptions(
    placement=Placement.gemm, samples=8, sequence=24, activation=Activation.uint8, reduce_range=Switch.on
)

Tiny = Callable[[str], tuple[Path, str]]


def spec(backend: str, precision: str, cache: ArtifactCache, **options: Any) -> BuildSpec:
    """Return the spec of a precision, which may have a scheme of quantization after it."""
    typed = from_json(describe(backend).options, options)
    precision, _, scheme = precision.partition(" ")
    quantization = replace(INT8, scheme=Scheme[scheme or "explicit"])
    return BuildSpec(precision, cpu().device, SHAPES, False, cache.root, typed, quantization, threads=1)


@pytest.mark.parametrize(
    ("backend", "precision", "least", "options"),
    [
        ("torch_eager", "fp32", 0.99999, {}),
        ("torch_eager", "bf16", 0.999, {}),
        ("torch_packed", "fp32", 0.99999, {}),
        ("torch_packed", "bf16", 0.999, {}),
        ("torch_packed", "fp32", 0.99999, {"pad_to_multiple_of": 7}),
        ("torch_packed", "fp8", 0.999, {}),
        ("torch_packed", "fp8", 0.999, {"pad_to_multiple_of": 7}),
        ("ort", "fp32", 0.99999, {}),
        ("ort", "fp32", 0.99999, {"fusion": "on"}),
        ("ort", "int8", 0.98, {}),
        ("ort", "int8 dynamic", 0.98, {}),
        ("openvino", "fp32", 0.99999, {}),
        ("openvino", "int8", 0.98, {}),
        ("openvino", "int8", 0.98, {"float_type": "fp32"}),
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
    if describe(backend).source is SourceKind.onnx:
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile and torchao warn about torch's own deprecated functions
def test_int8_of_torch_compile_runs_int8_products(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    folder, sha256 = tiny("bert")
    lengths, shape = Lengths("uniform", "random", 3), Shape(4, 24)
    inputs = prepare_inputs(InputSource(folder, sha256, lengths, TEXTS, 0, "cpu", shared_cache), [shape])
    arrays = np.load(inputs.path)
    feeds = {name: arrays[f"{shape}/{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
    backend, requested = load_backend("torch_compile"), spec("torch_compile", "int8 dynamic", shared_cache)
    backend.check(requested)
    with backend.open(requested, backend.build(requested, Source(folder, sha256))) as session:
        session.load(feeds)
        session.step()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            session.step()
        check = compare_with_reference(
            session.fetch(), arrays[f"{shape}/reference"], arrays[f"{shape}/rows"], feeds["attention_mask"]
        )
    assert check.cosine is not None
    assert check.cosine >= 0.98
    counts = {event.key: event.count for event in profiled.key_averages()}
    layers = 2
    assert counts["aten::_int_mm"] == 6 * layers
    assert not {"aten::mm", "aten::addmm", "mkldnn::_linear_pointwise"} & set(counts)
    assert torch.get_num_threads() == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about torch's own deprecated functions
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_fp8_of_torch_compile_merges_products(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    from torch.profiler import ProfilerActivity, profile

    folder, sha256 = tiny(family)
    shape, backend = Shape(4, 24), load_backend("torch_compile")
    origin = InputSource(folder, sha256, Lengths("uniform", "random", 3), TEXTS, 0, "cpu", shared_cache)
    arrays = np.load(prepare_inputs(origin, [shape]).path)
    names = [name for name in arrays.files if not name.endswith(("reference", "rows"))]
    feeds = {name.split("/")[1]: arrays[name] for name in names}
    requested = spec("torch_compile", "fp8", shared_cache)
    source = prepare_source(
        folder, sha256, backend.source_form(requested), requested.quantization, TEXTS, 0, shared_cache
    )
    with backend.open(requested, backend.build(requested, source)) as session:
        session.load(feeds)
        session.step()
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            session.step()
        check = compare_with_reference(
            session.fetch(), arrays[f"{shape}/reference"], arrays[f"{shape}/rows"], feeds["attention_mask"]
        )
    assert check.cosine is not None
    assert check.cosine >= 0.999
    counts = {event.key: event.count for event in profiled.key_averages()}
    assert counts["aten::mm"] == 4 * 2  # of two layers, in FP32 on a CPU; query, key and value are one product
    assert not {"aten::addmm", "mkldnn::_linear_pointwise"} & set(counts)


@pytest.mark.parametrize(
    ("precision", "model", "products"),
    [("int8", "bert", 12), ("int8 dynamic", "bert", 12), ("int8 dynamic", "albert", 13)],
)
def test_int8_covers_all_weight_products(
    precision: str, model: str, products: int, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny(model)
    requested = spec("ort", precision, shared_cache)
    form = SourceForm(quantized="int8")
    source = prepare_source(folder, sha256, form, requested.quantization, TEXTS, 0, shared_cache)
    assert source.onnx is not None
    assert source.onnx.notes["weight_products_quantized"] == source.onnx.notes["weight_products"] == products


def test_openvino_computes_all_weight_products_in_int8(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    backend, requested = load_backend("openvino"), spec("openvino", "int8", shared_cache)
    source = prepare_source(
        folder, sha256, backend.source_form(requested), requested.quantization, TEXTS, 0, shared_cache
    )
    assert backend.build(requested, source).notes["product_types"] == {"i8": 12}


def test_each_load_of_the_same_shape_gives_its_own_outputs(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)
    ones = np.ones((2, 8), np.int32)
    for name in ("torch_eager", "ort", "openvino"):
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
        ("torch_eager", "fp8", Device(), "use backend=torch_compile or backend=torch_packed"),
        (
            "torch_compile",
            "fp8",
            GPU,
            "fp8 needs compute capability 8.9; NVIDIA Old has 7.5; use precision=fp16 or int8",
        ),
        (
            "torch_packed",
            "fp8",
            GPU,
            "fp8 needs compute capability 8.9; NVIDIA Old has 7.5; use precision=fp16 or int8",
        ),
        ("torch_eager", "tf32", Device(), "precision=fp32"),
        ("torch_eager", "bf16", GPU, "compute capability 8.0"),
        ("torch_compile", "tf32", GPU, "compute capability 8.0"),
        ("ort", "bf16", GPU, "no bfloat16"),
        ("ort", "fp8", GPU, "backend=trt"),
        ("ort", "int8", GPU, "scheme=explicit"),
        ("ort", "int8 dynamic", GPU, "device=cpu"),
        ("openvino", "int8", Device(), "scheme=explicit"),
        ("openvino", "int8 dynamic", Device(), "scheme=explicit"),
        ("openvino", "fp16", Device(), "the precisions fp32, bf16 and int8; choose one"),
        ("openvino", "bf16", Device(name="Old CPU"), "Old CPU has no BF16 instructions"),
        ("torch_compile", "int8", Device(), "scheme=dynamic"),
        ("torch_compile", "int8 dynamic", GPU, "backend=trt"),
        ("ort", "fp16", Device(), "CUDA provider"),
        ("ort", "tf32", Device(), "CUDA provider"),
        ("ort", "tf32", GPU, "compute capability 8.0"),
    ],
)
def test_unsupported_precisions_are_refused_with_advice(
    backend: str, precision: str, device: Device, message: str, tmp_path: Path
) -> None:
    precision, _, scheme = precision.partition(" ")
    quantization = QuantizationOptions(scheme=Scheme[scheme or "implicit"])
    requested = BuildSpec(precision, device, SHAPES, False, tmp_path, describe(backend).options(), quantization)
    with pytest.raises(Unsupported, match=message):
        load_backend(backend).check(requested)


def test_compiling_without_a_compiler_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"install g\+\+"):
        load_backend("torch_compile").check(BuildSpec("fp32", Device(), SHAPES, False, tmp_path, CompileOptions()))


@pytest.mark.parametrize(
    ("backend", "precision", "package"),
    [("openvino", "fp32", "openvino"), ("torch_compile", "int8 dynamic", "torchao")],
)
def test_a_missing_optional_package_is_unavailable(
    backend: str, precision: str, package: str, shared_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(describe(backend).factory.partition(":")[0])
    for place in (module, dynamic_linear):
        monkeypatch.setattr(place, "versions_of", lambda names: {n: "1" for n in names if n != package})
    with pytest.raises(Unavailable, match=f"pip install {package}"):
        load_backend(backend).check(spec(backend, precision, shared_cache))


def test_the_float_type_of_openvino_is_for_int8(shared_cache: ArtifactCache) -> None:
    with pytest.raises(Unsupported, match=r"openvino\.float_type=fp32 is for precision=int8"):
        load_backend("openvino").check(spec("openvino", "fp32", shared_cache, float_type="fp32"))


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
