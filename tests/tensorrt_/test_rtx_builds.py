"""Graphs and layers of the project, parsed and built by TensorRT-RTX.

TensorRT-RTX has the API of TensorRT 11 and builds engines without a GPU. It needs strongly typed graphs, as 11 does.
Engines are built and not run.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import OTHER_MODELS, TINY_MODELS

from backends.base import SourceForm
from backends.cache import ArtifactCache
from backends.model.heads import Head, Layer
from backends.model_output import Output
from backends.onnx_.onnx_source import prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.head_layers import HeadLayers

EMBEDDING = Output("embedding", ("mean",), True, per_token=False)
INT8 = QuantizationOptions(
    placement=Placement.gemm, samples=8, sequence=24, activation=Activation.int8, reduce_range=Switch.off
)
FORMS = {
    "fp32": SourceForm(),
    "fp16": SourceForm(types="fp16"),
    "bf16": SourceForm(types="bf16"),
    "int8": SourceForm(types="fp16", quantized="int8"),
    "fp8": SourceForm(types="fp16", quantized="fp8"),
}
HIDDEN, TOKENS, SEQUENCE, BATCH = 64, 128, 16, 8
"""Sizes of the networks with only a head."""


@pytest.fixture(scope="module")
def rtx() -> ModuleType:
    module: ModuleType = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    return module


class Build:
    """A strongly typed network of TensorRT-RTX, and the errors of its parser and builder."""

    def __init__(self, trt: Any) -> None:
        errors: list[str] = []

        class Log(trt.ILogger):  # type: ignore[misc]
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    errors.append(message)

        self.trt, self.errors, self.logger = trt, errors, Log()
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.profile = self.builder.create_optimization_profile()

    def parse(self, path: Path) -> bool:
        parser = self.trt.OnnxParser(self.network, self.logger)
        parsed = bool(parser.parse_from_file(str(path)))
        self.errors += [str(parser.get_error(number)) for number in range(parser.num_errors)]
        return parsed

    def plan(self) -> Any:
        config = self.builder.create_builder_config()
        config.add_optimization_profile(self.profile)
        return self.builder.build_serialized_network(self.network, config)


@pytest.mark.parametrize("precision", FORMS)
@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_an_exported_graph_with_its_pooling_is_built(
    family: str, precision: str, rtx: ModuleType,
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache,
) -> None:  # fmt: skip
    source = prepare_source(*tiny(family), FORMS[precision], INT8, ["a line"], 0, shared_cache, output=EMBEDDING)
    assert source.onnx is not None
    build = Build(rtx)
    assert build.parse(source.onnx.path), build.errors
    for number in range(build.network.num_inputs):
        build.profile.set_shape(build.network.get_input(number).name, (1, 8), (4, 32), (8, 64))
    plan = build.plan()
    assert plan is not None, build.errors
    kinds = [build.network.get_layer(number).type for number in range(build.network.num_layers)]
    quantized = kinds.count(rtx.LayerType.QUANTIZE)
    assert quantized > 0 if precision in ("int8", "fp8") else quantized == 0
    assert next(iter(build.network.get_output(0).shape)) == -1


def test_unsigned_activations_are_refused_with_the_name_of_a_node(
    rtx: ModuleType, tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache
) -> None:
    """TensorRT has no unsigned quantization. Its message names a node of the graph."""
    unsigned = QuantizationOptions(
        placement=Placement.gemm, samples=8, sequence=24, activation=Activation.uint8, reduce_range=Switch.off
    )
    source = prepare_source(*tiny("bert"), FORMS["int8"], unsigned, ["a line"], 0, shared_cache)
    assert source.onnx is not None
    build = Build(rtx)
    assert not build.parse(source.onnx.path)
    assert "QuantizeLinear" in " ".join(build.errors)


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


NORMALIZE = (Layer("normalize"),)
CLASSIFIER = (
    Layer("linear", matrix(32, HIDDEN), np.ones(32, np.float32)), Layer("tanh"), Layer("gelu"), Layer("relu"),
    Layer("norm", np.ones(32, np.float32)), Layer("linear", matrix(3, 32), np.ones(3, np.float32)),
)  # fmt: skip
POOLED = [(mode, NORMALIZE) for mode in ("mean", "cls", "lasttoken", "mean_sqrt_len_tokens", "weightedmean")]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("packed", "pooling", "layers"),
    [
        *((packed, (mode,), layers) for packed in (True, False) for mode, layers in POOLED),
        *((packed, pooling, CLASSIFIER) for packed in (True, False) for pooling in (("cls",), ())),
        *((packed, ("cls", "mean"), ()) for packed in (True, False)),
        (False, ("max",), NORMALIZE),
    ],
)
def test_the_layers_after_packed_and_padded_encoders_are_built(
    packed: bool, pooling: tuple[str, ...], layers: tuple[Layer, ...], half: bool, rtx: ModuleType
) -> None:
    build = Build(rtx)
    network, profile = build.network, build.profile
    api: Any = SimpleNamespace(trt=rtx, can=SimpleNamespace(weak_typing=False, int64_sizes=True))
    kind = rtx.DataType.HALF if half else rtx.DataType.FLOAT
    if packed:
        hidden = network.add_input("hidden", kind, (-1, HIDDEN, 1, 1))
        ids = network.add_input("input_ids", rtx.int32, (-1,))
        places = network.add_input("cu_seqlens", rtx.int32, (-1,))
        profile.set_shape("hidden", *((tokens, HIDDEN, 1, 1) for tokens in (1, TOKENS // 2, TOKENS)))
        profile.set_shape("input_ids", (1,), (TOKENS // 2,), (TOKENS,))
        profile.set_shape("cu_seqlens", (2,), (3,), (BATCH + 1,))
    else:
        hidden = network.add_input("hidden", kind, (SEQUENCE, -1, HIDDEN, 1, 1))
        ids = network.add_input("input_ids", rtx.int32, (SEQUENCE, -1))
        places = network.add_input("input_mask", rtx.int32, (SEQUENCE, -1))
        profile.set_shape("hidden", *((SEQUENCE, batch, HIDDEN, 1, 1) for batch in (1, 4, BATCH)))
        for name in ("input_ids", "input_mask"):
            profile.set_shape(name, *((SEQUENCE, batch) for batch in (1, 4, BATCH)))
    added = HeadLayers(
        BasicLayers(api, network, half), Head(pooling, layers), places, packed, ids,
        width=HIDDEN, most_tokens=TOKENS if packed else SEQUENCE, rounded=packed,
    )  # fmt: skip
    output = added.output(hidden)
    network.mark_output(output)
    assert build.plan() is not None, build.errors
    features = 3 if layers is CLASSIFIER else HIDDEN * max(1, len(pooling))
    assert tuple(output.shape)[-1] == features
    assert len(output.shape) == (2 if packed or pooling else 3)
