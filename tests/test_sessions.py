"""Real sessions on the CPU: right numbers at every shape, padded or not, one shape after another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import BuildSpec, Device, Shape, Source, Unavailable, Unsupported, load_backend
from backends.cache import ArtifactCache
from backends.inputs import InputSource, prepare_inputs
from backends.onnx_source import export_onnx, prepare_source
from suites.config import QuantizationConfig, plain
from suites.latency import compare

SHAPES = (Shape(1, 8), Shape(4, 24), Shape(12, 16), Shape(1, 8))
TEXTS = ["a line", "another line", "a third"]
OPTIONS = {"threads": 1, "fusion": "auto", "dynamic": "off", "compile_mode": "default"}
INT8 = {
    **plain(vars(QuantizationConfig(samples=8, sequence=24))),
    "placement": "gemm",
    "activation": "uint8",
    "reduce_range": True,
}

Tiny = Callable[[str], tuple[Path, str]]


def spec(precision: str, cache: ArtifactCache, **options: Any) -> BuildSpec:
    quantization = INT8 if precision == "int8" else {}
    return BuildSpec(precision, Device(), SHAPES, False, cache.root, {**OPTIONS, **options}, quantization)


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
    lengths = {"distribution": distribution, "tokens": "random", "low": 3}
    inputs = prepare_inputs(InputSource(folder, sha256, lengths, TEXTS, 0, "cpu", shared_cache), sorted(set(SHAPES)))
    chosen, asked = load_backend(backend), spec(precision, shared_cache, **options)
    source = Source(folder, sha256)
    if backend in ("ort", "torch_packed"):
        source = prepare_source(folder, sha256, chosen.form(asked), asked.quantization, TEXTS, 0, shared_cache)
    arrays = np.load(inputs.path)
    with chosen.open(asked, chosen.build(asked, source)) as session:
        for shape in SHAPES:
            names = [n for n in arrays.files if n.startswith(f"{shape}/")]
            feeds = {n.split("/")[1]: arrays[n] for n in names if not n.endswith(("reference", "rows"))}
            session.load(feeds)
            session.step()
            session.wait()
            check = compare(
                session.fetch(), arrays[f"{shape}/reference"], arrays[f"{shape}/rows"], feeds["attention_mask"]
            )
            assert check["nonfinite"] == 0
            assert check["cosine"] >= least
        with pytest.raises(Unsupported, match="GPU"):
            session.capture()


def test_the_second_load_of_a_shape_brings_new_numbers(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)
    ones = np.ones((2, 8), np.int32)
    for name in ("torch_eager", "ort"):
        backend, asked = load_backend(name), spec("fp32", shared_cache)
        outputs = []
        with backend.open(asked, backend.build(asked, Source(folder, sha256, onnx))) as session:
            for ids in (ones * 7, ones * 9, ones * 7):
                session.load({"input_ids": ids, "attention_mask": ones, "token_type_ids": ones * 0})
                session.step()
                session.wait()
                outputs.append(session.fetch().copy())
        np.testing.assert_array_equal(outputs[0], outputs[2])
        assert np.abs(outputs[0] - outputs[1]).max() > 0.1


GPU = Device("cuda", 0, "NVIDIA Old", "GPU-0", (7, 5))


@pytest.mark.parametrize(
    ("backend", "precision", "device", "says"),
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
def test_what_cannot_be_done_says_why(backend: str, precision: str, device: Device, says: str, tmp_path: Path) -> None:
    asked = BuildSpec(precision, device, SHAPES, False, tmp_path, OPTIONS, {"scheme": "implicit"})
    with pytest.raises(Unsupported, match=says):
        load_backend(backend).check(asked)


def test_compiling_without_a_compiler_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"install g\+\+"):
        load_backend("torch_compile").check(BuildSpec("fp32", Device(), SHAPES, False, tmp_path, OPTIONS))
