"""Norms in FP16 add their squares in FP32, so that large activations do not overflow."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from backends.base import Array, BuildSpec, Device, Shape, Source
from backends.cache import ArtifactCache
from backends.model.identity import identity_of
from backends.model_output import LAST_HIDDEN, Output
from backends.onnx_.onnx_casts import cast_onnx, sums_of_squares
from backends.onnx_.onnx_source import export_onnx
from backends.registry import describe, load_backend
from backends.tensorrt_.build.precision import set_precision
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

Tiny = Callable[[str], tuple[Path, str]]
EMBEDDING = Output("embedding", ("mean",), True, per_token=False)
LARGE = 600.0
"""A value whose square is above the largest number of FP16, 65,504."""


def with_large_activations(folder: Path, copy: Path, weight: str) -> Path:
    """Return a copy of a checkpoint in which the largest value of a weight is LARGE."""
    shutil.copytree(folder, copy)
    weights = load_file(copy / "model.safetensors")
    weights[weight] = weights[weight] * (LARGE / weights[weight].abs().max())
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    return copy


def feeds_of(family: str) -> dict[str, Array]:
    ids = np.random.default_rng(0).integers(5, 90, (2, 9)).astype(np.int32)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    return {**feeds, "token_type_ids": ids * 0} if family == "bert" else feeds


@pytest.mark.parametrize(
    ("family", "weight", "output"),
    [
        ("eurobert", "embed_tokens.weight", LAST_HIDDEN),
        ("bert", "encoder.layer.1.output.LayerNorm.weight", EMBEDDING),
    ],
)
def test_a_graph_in_half_precision_does_not_overflow(
    family: str, weight: str, output: Output, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    """The evaluator of ONNX computes each node in the type of the graph; onnxruntime has no FP16 on a CPU."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    folder = with_large_activations(tiny(family)[0], tmp_path / "model", weight)
    exported = export_onnx(folder, identity_of(folder), shared_cache, output)
    half = cast_onnx(exported, "fp16", (), shared_cache)
    (expected,), (got,) = (
        ReferenceEvaluator(onnx.load(str(file.path))).run(None, feeds_of(family)) for file in (exported, half)
    )
    assert got.dtype == np.float16
    np.testing.assert_allclose(got.astype(np.float32), expected, atol=0.01, rtol=0.01)
    assert np.abs(expected).max() > 0.1


def test_pytorch_in_half_precision_does_not_overflow(tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path) -> None:
    folder = with_large_activations(tiny("eurobert")[0], tmp_path / "model", "embed_tokens.weight")
    outputs = {}
    for precision in ("fp32", "fp16"):
        backend, options = load_backend("torch_eager"), describe("torch_eager").options()
        spec = BuildSpec(precision, Device(), (Shape(2, 9),), False, shared_cache.root, options)
        with backend.open(spec, backend.build(spec, Source(folder, ""))) as session:
            session.load(feeds_of("eurobert"))
            session.step()
            outputs[precision] = np.array(session.fetch(), np.float32)
    np.testing.assert_allclose(outputs["fp16"], outputs["fp32"], atol=0.02, rtol=0.02)


NAMES = ["/a/norm/Pow", "/a/norm/ReduceMean", "/a/norm/Sqrt", "/a/norm/Mul_1", "/head/Mul", "/head/ReduceSum",
         "/head/Sqrt", "/a/Sqrt", "/b/ReduceMean", "/b/Add"]  # fmt: skip


def test_norms_are_found_by_their_scopes() -> None:
    assert sums_of_squares(NAMES, ("ReduceMean",)) == NAMES[:4]
    assert sums_of_squares(NAMES, ("ReduceMean", "ReduceSum")) == NAMES[:7]


class Layer:
    """Layer of a network that records its precision."""

    def __init__(self, name: str) -> None:
        self.name, self.type, self.num_outputs, self.precision = name, "ELEMENTWISE", 1, ""

    def get_output(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(is_shape_tensor=False, dtype="FLOAT")

    def set_output_type(self, index: int, kind: str) -> None:
        self.precision = f"{self.precision} {kind}"


def test_builder_flags_keep_rmsnorm_in_fp32() -> None:
    layers, flags = [Layer(name) for name in NAMES], list[str]()
    kinds = SimpleNamespace(FLOAT="FLOAT", HALF="HALF", QUANTIZE="QUANTIZE", CONSTANT="CONSTANT")
    names = ("TF32", "FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS")
    trt = SimpleNamespace(
        BuilderFlag=SimpleNamespace(**{name: name for name in names}), LayerType=kinds, DataType=kinds
    )
    can = SimpleNamespace(weak_typing=True, strong_typing=True, opset_19=False)
    network = SimpleNamespace(get_layer=layers.__getitem__, num_layers=len(layers))
    config = SimpleNamespace(set_flag=flags.append, clear_flag=lambda name: None)
    target: Any = SimpleNamespace(api=SimpleNamespace(trt=trt, can=can), network=network, config=config)
    spec = BuildSpec("fp16", Device("cuda"), (Shape(1, 8),), False, Path(), TensorRTOptions())
    assert set_precision(target, spec) == 0
    assert [layer.name for layer in layers if layer.precision == "FLOAT FLOAT"] == NAMES[:4]
    assert flags == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
