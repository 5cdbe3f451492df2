"""Engines that TensorRT-RTX builds from the graphs and layers of the project. They need no GPU and do not run.

TensorRT-RTX has the API of TensorRT 11 and needs strongly typed graphs, as 11 does.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import OTHER_MODELS, TINY_MODELS
from onnx import TensorProto, helper

from backends.base import Artifact, BuildSpec, Device, Shape, Source, Unsupported
from backends.cache import ArtifactCache, digest_of
from backends.json_codec import from_json
from backends.model.heads import Head, Layer
from backends.model_output import Output
from backends.onnx_.onnx_source import prepare_source
from backends.options import Profiles, Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions
from backends.tensorrt_.build.inspection import LAYERS
from backends.tensorrt_.onnx_backend import TensorRT
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.head_layers import HeadLayers
from backends.tensorrt_.runtime.installation import available_api
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions

SHAPES = (Shape(1, 16), Shape(4, 32))
EMBEDDING = Output("embedding", ("mean",), True, per_token=False)
QUANTIZATION = QuantizationOptions(
    placement=Placement.all_but_ffn_residual, samples=8, sequence=24, activation=Activation.int8,
    reduce_range=Switch.off,
)  # fmt: skip

FAMILIES = ("bert", "roberta", "distilbert", "electra", "mpnet", "albert")
"""Families that are built with two kinds of profiles in four precisions."""

OTHER_FAMILIES = tuple(name for name in (*TINY_MODELS, *OTHER_MODELS) if name not in FAMILIES)

OWN_GRAPHS = tuple(name for name in OTHER_FAMILIES if name not in ("camembert", "xlm-roberta", "ernie"))
"""Families of OTHER_FAMILIES whose layers are not those of BERT."""

FURTHER = (
    ("bert", "bf16"), ("albert", "bf16"), ("eurobert", "bf16"), ("modernbert", "fp8"),
    ("eurobert", "fp8"),
)  # fmt: skip
"""More types, for families whose graphs differ: shared layers, RMSNorm, and attention that uses positions."""

FP16_ATTENTION = ("mpnet", "albert")
"""Families of FAMILIES whose attention stays FP16 in INT8 and FP8, and so is fused."""

PRECISIONS = {"fp32": "f32", "fp16": "f16", "int8": "i8", "fp8": "e4m3"}
"""Precisions of cells, and the type of the operands of their products in the notes of an engine."""

PROFILES = {Profiles.per_shape: 2, Profiles.dynamic: 1}
"""Number of profiles of SHAPES by kind."""

HIDDEN, TOKENS, SEQUENCE, BATCH = 64, 128, 16, 8
"""Sizes of the networks with only a head."""

Tiny = Callable[[str], tuple[Path, str]]


@pytest.fixture(scope="module")
def rtx() -> TensorRTApi:
    """Return the API of the installed TensorRT-RTX."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    api = available_api()
    if not api.can.named_targets:
        pytest.skip("this interpreter has TensorRT too, which comes first")
    return api


def named_spec(cache: Path, precision: str, target: str = "sm89") -> BuildSpec:
    options = from_json(TensorRTOptions, {"min": [1, 16], "opt": [4, 32], "max": [4, 32], "target": target})
    gpu = options.named_gpu()
    assert gpu is not None
    device = Device("cuda", name=gpu.name, compute_capability=gpu.compute_capability)
    return BuildSpec(precision, device, SHAPES, True, cache, options, QUANTIZATION, output=EMBEDDING)


class Building:
    """Builds the engines of a model as a worker does, from one graph with its pooling."""

    def __init__(self, rtx: TensorRTApi, requested: BuildSpec, folder: tuple[Path, str], cache: ArtifactCache) -> None:
        self.backend, self.requested = TensorRT(lambda: rtx), requested
        form, quantization = self.backend.source_form(requested), requested.quantization
        self.source = prepare_source(*folder, form, quantization, ["a line"], 0, cache, output=EMBEDDING)

    def built(self, profiles: Profiles = Profiles.dynamic) -> Artifact:
        options = replace(self.requested.options_as(TensorRTOptions), profiles=profiles)
        requested = replace(self.requested, options=options)
        self.backend.check(requested)
        artifact = self.backend.build(requested, self.source)
        assert artifact.notes["target"] == options.target.name
        return artifact


def products(artifact: Artifact) -> dict[str, int]:
    return from_json(dict[str, int], artifact.notes["product_types"], "product_types")


def profiles_of(artifact: Artifact) -> list[str]:
    return from_json(list[str], artifact.notes["profiles"], "profiles")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_engines_of_each_kind_of_profiles_have_products_in_their_precision(
    family: str, precision: str, rtx: TensorRTApi, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    building = Building(rtx, named_spec(tmp_path, precision), tiny(family), shared_cache)
    for profiles, number in PROFILES.items():
        artifact = building.built(profiles)
        types = products(artifact)
        assert types[PRECISIONS[precision]] == max(types.values())
        assert len(profiles_of(artifact)) == number
        layers = json.loads(artifact.path.with_name(LAYERS).read_text())["Layers"]
        fused = precision == "fp16" or (precision != "fp32" and family in FP16_ATTENTION)
        assert any("mha" in layer["Name"] for layer in layers) == fused


@pytest.mark.parametrize(("family", "precision"), [("bert", "fp16"), ("distilbert", "int8")])
def test_an_engine_of_buckets_has_a_profile_for_each_range(
    family: str, precision: str, rtx: TensorRTApi, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    building = Building(rtx, named_spec(tmp_path, precision), tiny(family), shared_cache)
    artifact = building.built(Profiles.buckets)
    assert profiles_of(artifact) == ["1x16", "2x16..4x16", "1x17..1x32", "2x17..4x32"]
    assert PRECISIONS[precision] in products(artifact)


@pytest.mark.parametrize(
    ("family", "precision"),
    [*((family, "fp16") for family in OTHER_FAMILIES), *((family, "int8") for family in OWN_GRAPHS), *FURTHER],
)
def test_the_graph_of_each_other_family_and_other_types_are_built(
    family: str, precision: str, rtx: TensorRTApi, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    quantization = replace(QUANTIZATION, placement=Placement.gemm)
    requested = replace(named_spec(tmp_path, precision), quantization=quantization)
    artifact = Building(rtx, requested, tiny(family), shared_cache).built()
    types = products(artifact)
    assert types[(PRECISIONS | {"bf16": "bf16"})[precision]] == max(types.values())


def test_a_portable_engine_is_another_one(
    rtx: TensorRTApi, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    named, portable = (
        Building(rtx, named_spec(tmp_path, "fp16", target), tiny("bert"), shared_cache).built()
        for target in ("sm89", "portable")
    )
    assert named.sha256 != portable.sha256
    with pytest.raises(Unsupported, match=r"fp8 needs compute capability 8.9; tensorrt-rtx portable is older"):
        TensorRT(lambda: rtx).check(named_spec(tmp_path, "fp8", "portable"))


def graph_with(tmp_path: Path, nodes: list[Any], initializers: list[Any]) -> Source:
    """Return a source whose graph has the inputs of a model, and these nodes from `input_ids` to `output`."""
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT32, ["b", "s"])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "planted", inputs, outputs, initializers)
    path = tmp_path / "planted.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Source(tmp_path, "", onnx=Artifact(path, digest_of(path), notes={"opset": 17}))


CAST = helper.make_node("Cast", ["input_ids"], ["x"], "/embeddings/Cast", to=TensorProto.FLOAT)
SCALE = helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1])
FAULTS = {
    "/layer.0/QuantizeLinear": (
        [CAST, helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "/layer.0/QuantizeLinear"),
         helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["output"], "/layer.0/DequantizeLinear")],
        [SCALE, helper.make_tensor("zero", TensorProto.UINT8, [], [128])],
    ),
    "/layer.0/Add": (
        [CAST, helper.make_node("Add", ["x", "half"], ["output"], "/layer.0/Add")],
        [helper.make_tensor("half", TensorProto.FLOAT16, [], [0.5])],
    ),
}  # fmt: skip
"""Faults in graphs by the name of the node: a UINT8 zero point, and operands of two types."""


@pytest.mark.parametrize("node", FAULTS)
def test_a_planted_fault_is_refused_with_the_name_of_its_node(node: str, rtx: TensorRTApi, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=node) as refused:
        TensorRT(lambda: rtx).build(named_spec(tmp_path, "fp16"), graph_with(tmp_path, *FAULTS[node]))
    assert "\n" not in str(refused.value)


def test_unsigned_activations_are_refused_with_the_name_of_a_node(
    rtx: TensorRTApi, tiny: Tiny, shared_cache: ArtifactCache, tmp_path: Path
) -> None:
    """TensorRT has no unsigned quantization. Its message names a node of the graph."""
    unsigned = replace(QUANTIZATION, placement=Placement.gemm, activation=Activation.uint8)
    requested = replace(named_spec(tmp_path, "int8"), quantization=unsigned)
    building = Building(rtx, requested, tiny("bert"), shared_cache)
    with pytest.raises(Unsupported, match="QuantizeLinear"):
        building.built()


class HeadBuild:
    """A strongly typed network of TensorRT-RTX with one profile, and the errors of its builder."""

    def __init__(self, trt: ModuleType) -> None:
        errors: list[str] = []

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    errors.append(message)

        self.errors, self.logger = errors, Log()
        self.builder = trt.Builder(self.logger)
        self.network = self.builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        self.profile = self.builder.create_optimization_profile()

    def plan(self) -> Any:
        config = self.builder.create_builder_config()
        config.add_optimization_profile(self.profile)
        return self.builder.build_serialized_network(self.network, config)


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
    packed: bool, pooling: tuple[str, ...], layers: tuple[Layer, ...], half: bool, rtx: TensorRTApi
) -> None:
    trt: Any = rtx.trt
    build = HeadBuild(trt)
    network, profile = build.network, build.profile
    api: Any = SimpleNamespace(trt=trt, can=SimpleNamespace(weak_typing=False, int64_sizes=True))
    kind = trt.DataType.HALF if half else trt.DataType.FLOAT
    if packed:
        hidden = network.add_input("hidden", kind, (-1, HIDDEN, 1, 1))
        ids = network.add_input("input_ids", trt.int32, (-1,))
        places = network.add_input("cu_seqlens", trt.int32, (-1,))
        profile.set_shape("hidden", *((tokens, HIDDEN, 1, 1) for tokens in (1, TOKENS // 2, TOKENS)))
        profile.set_shape("input_ids", (1,), (TOKENS // 2,), (TOKENS,))
        profile.set_shape("cu_seqlens", (2,), (3,), (BATCH + 1,))
    else:
        sizes = ((4, 1), (SEQUENCE // 2, 4), (SEQUENCE, BATCH))
        hidden = network.add_input("hidden", kind, (-1, -1, HIDDEN, 1, 1))
        ids = network.add_input("input_ids", trt.int32, (-1, -1))
        places = network.add_input("input_mask", trt.int32, (-1, -1))
        profile.set_shape("hidden", *((*size, HIDDEN, 1, 1) for size in sizes))
        for name in ("input_ids", "input_mask"):
            profile.set_shape(name, *sizes)
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
