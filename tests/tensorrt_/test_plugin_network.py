"""Layers of the network of plugins, with their fields and ranges, recorded by a mock of TensorRT's network."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from fake_api import ALL, capabilities, fake_api
from recorded_network import Recorder, Tensor, record_plugin
from test_tensorrt_plugin import INT8, spec

from backends.base import Shape, Source, SourceForm
from backends.cache import ArtifactCache
from backends.model.weights import equalize_ranges, pad_heads
from backends.onnx_.onnx_source import prepare_source
from backends.profiles import Profile
from backends.tensorrt_.build.build_target import BuildTarget
from backends.tensorrt_.plugins import gelu_layers, plugin_network, products
from backends.tensorrt_.plugins.plugin_choices import Choices
from backends.tensorrt_.plugins.weights_network import define_from_weights
from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.layout import Columns, Packed
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

MISSING = {"strong_typing", "packed_attention"}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> TensorRTApi:
    """API of a fake TensorRT. Its Weights returns the array itself, and plugins are layers of the Recorder."""
    for module in (plugin_network, products, gelu_layers):
        monkeypatch.setattr(module, "add_plugin", record_plugin)
    fake = fake_api(ALL - MISSING)
    fake.trt.Weights = lambda array: array
    return fake


Sources = Callable[..., Source]
Define = Callable[..., tuple[Recorder, dict[str, float]]]


@pytest.fixture
def sources(tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache) -> Sources:
    """Return a function that prepares weights and ranges of a tiny model: 2 layers, 2 heads of size 32, hidden 64."""

    def prepare(family: str = "bert", leave_out: tuple[str, ...] = ()) -> Source:
        form, quantization = SourceForm(arrays=True, ranges=True), replace(INT8, leave_out=list(leave_out))
        return prepare_source(*tiny(family), form, quantization, ["a line"], 0, shared_cache)

    return prepare


@pytest.fixture
def define(sources: Sources, api: TensorRTApi) -> Define:
    """Return a function that defines a packed INT8 network with convolutions and erf, changed by `changes`.

    The function returns the network and the ranges.
    """

    def build(
        family: str = "bert", leave_out: tuple[str, ...] = (), marked: tuple[str, ...] = (), int8: bool = True,
        can: Capabilities | None = None, **changes: Any,
    ) -> tuple[Recorder, dict[str, float]]:  # fmt: skip
        source, network = sources(family, leave_out), Recorder()
        release = replace(api, can=can or api.can)
        assert source.arrays is not None
        assert source.ranges is not None
        ranges = json.loads(source.ranges.path.read_text()) if int8 else {}
        arrays = pad_heads(dict(np.load(source.arrays.path)), 64)
        if int8:
            arrays, ranges = equalize_ranges(arrays, ranges, 2**0.5)
        base = Choices(True, False, True, "convolution", "erf", int8, int8, 128)
        choices = Choices(**{**vars(base), **changes})
        notes, excluded = {"layers": 2, "heads": 2, "hidden": 128}, source.ranges.notes["left"]
        plugin_network.PluginNetwork(release, network, choices, arrays, notes, ranges, excluded, marked).define()
        return network, ranges

    return build


@pytest.mark.parametrize("family", ["bert", "electra"])
@pytest.mark.parametrize(
    ("packed", "products", "gelu", "positions"),
    [
        (True, "convolution", "sigmoid", 128),
        (True, "convolution", "cubic", 128),
        (True, "fully_connected", "cubic", 128),
        (True, "matmul", "erf", 512),
        (True, "convolution", "exported_erf", 128),
        (True, "convolution", "ordered_erf", 128),
        (False, "plugin", "erf", 128),
        (False, "convolution", "erf", 128),
    ],
)
def test_a_network_has_the_layers_of_the_model(
    packed: bool, products: str, gelu: str, positions: int, family: str, define: Define, api: TensorRTApi
) -> None:
    network, ranges = define(family, packed=packed, products=products, gelu=gelu, positions=positions)
    counted, projected, plain = (
        Counter(layer.verb for layer in network.layers),
        int(family == "electra"),
        packed and positions > 384,
    )
    assert (counted["EmbLayerNorm"], counted["QKVToContext"], counted["SkipLayerNorm"]) == (0 if plain else 1, 2, 4)
    assert counted["FC"] == (8 + projected if products == "plugin" else 0)
    versions = {layer.arguments[0] for layer in network.layers if layer.verb[:3] in ("Emb", "QKV", "Ski")}
    assert versions == {2 if packed else 1}
    attention = network.fields("0/attention")
    assert (attention["type_id"], attention["hidden_size"], attention["num_heads"]) == (2, 128, 2)
    assert attention["dq_probs"] == ranges["0/probs"] / 127
    assert sorted(network.inputs) == sorted(plugin_inputs(packed, positions))
    assert counted["add_convolution_nd"] == (8 + projected if products == "convolution" else 0)
    assert counted["add_fully_connected"] == (8 + projected if products == "fully_connected" else 0)
    assert counted["add_matrix_multiply"] == (8 + projected if products == "matmul" else 0)
    assert counted["add_gather"] == (3 if plain else 0)
    assert counted["add_unary"] == (2 if "erf" in gelu else 0)
    assert counted["add_activation"] == {"sigmoid": 4, "cubic": 2}.get(gelu, 0)
    # TensorRT may compute a layer or a constant of GELU in FP16 if its precision is not set to FP32.
    constants = {"sigmoid": 5, "cubic": 5}.get(gelu, 3)
    operations = {"sigmoid": 13, "cubic": 8}.get(gelu, 5)
    full = api.trt.DataType.FLOAT
    assert sum(layer.precision is full for layer in network.layers) == 2 * (constants + operations)
    assert network.output.name == "last_hidden_state"


@pytest.mark.parametrize("packed", [True, False])
def test_gelu_by_the_plugin_has_no_other_layers(packed: bool, define: Define) -> None:
    network, _ = define(packed=packed, int8=False, gelu="plugin", products="matmul")
    plugins = network.of("Gelu")
    assert [layer.name for layer in plugins] == ["0/gelu", "1/gelu"]
    assert {layer.arguments[0] for layer in plugins} == {1}
    assert all(layer.arguments[2] == {"type_id": 1} for layer in plugins)
    assert network.of("add_unary") + network.of("add_activation") == []


@pytest.mark.parametrize(
    ("packed", "flat", "whole"), [(True, (0, 1), (0, 1, 1, 1)), (False, (0, 0, 1), (0, 0, 1, 1, 1))]
)
def test_flat_gelu_is_between_two_changes_of_sizes(
    packed: bool, flat: tuple[int, ...], whole: tuple[int, ...], define: Define
) -> None:
    """A tensor of the recorder has one feature."""
    network, _ = define(packed=packed, int8=False, flat_gelu=True, products="convolution")
    before, after = (
        (layer for layer in network.of("add_shuffle") if layer.reshape_dims in (flat, whole)),
        network.layers,
    )
    order = [(layer.verb, getattr(layer, "reshape_dims", None)) for layer in after]
    first = order.index(("add_shuffle", flat))
    between = [verb for verb, _ in order[first + 1 : order.index(("add_shuffle", whole))]]
    assert between.count("add_unary") == 1
    assert set(between) == {"add_constant", "add_elementwise", "add_unary"}
    assert len(list(before)) == 4


def plugin_inputs(packed: bool, positions: int) -> list[str]:
    layout = Packed(positions=positions > 384) if packed else Columns()
    shape = Shape(2, positions)
    return list(layout.sizes(Profile(shape, shape, shape)))


ROUNDED = ("qkv", "context", "attended", "attention", "gelu", "down", "output")
"""Points that have a range if all tensors are INT8. The input of GELU and the tensors of the softmax have none."""


@pytest.mark.parametrize(
    ("changes", "without"),
    [
        ({"interleaved": True}, []),
        # The last norm and its input are floating point.
        ({}, ["1/down", "1/output"]),
        ({"int8_norms": False}, ["0/attended", "0/down", "1/attended", "1/down", "1/output"]),
        ({"int8_attention": False}, ["0/qkv", "1/qkv", "1/down", "1/output"]),
    ],
)
def test_inputs_of_floating_point_layers_have_no_range(
    changes: dict[str, Any], without: list[str], define: Define, api: TensorRTApi
) -> None:
    network, ranges = define(**changes)
    points = {"embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in ROUNDED)}
    assert network.ranges == sorted(ranges[point] for point in points - {*without})
    half = {layer.name for layer in network.of("add_convolution_nd") if layer.types}
    assert half == {point for point in without if not point.endswith("/output")}
    assert all(layer.types[0] is api.trt.DataType.HALF for layer in network.of("add_convolution_nd") if layer.types)
    kinds = [
        network.fields(f"{layer}/{norm}_norm").get("type_id") for layer in (0, 1) for norm in ("attention", "output")
    ]
    norm_type = 1 if changes.get("int8_norms") is False else 2
    assert kinds == ([None] * 4 if "interleaved" in changes else [norm_type, norm_type, norm_type, 1])


def test_without_int8_no_layer_has_a_range_or_a_set_type(define: Define) -> None:
    network, _ = define(int8=False)
    assert network.ranges == []
    assert not any(layer.types for layer in network.of("add_convolution_nd"))


def test_an_interleaved_network_has_plugins_of_version_3_without_mask_fields(define: Define) -> None:
    network, _ = define(interleaved=True)
    attention, norm = network.named("0/attention"), network.named("0/attention_norm")
    assert (attention.arguments[0], len(attention.arguments[1]), {*attention.arguments[2]}) == (
        3, 3, {"hidden_size", "num_heads", "dq_probs", "use_int8_scale_max"},
    )  # fmt: skip
    assert (norm.arguments[0], len(norm.arguments[1]), {*norm.arguments[2]}) == (3, 2, {"beta", "gamma"})
    assert len(network.of("add_shuffle")) == 2


def test_a_release_with_packed_attention_needs_no_plugin(define: Define, api: TensorRTApi) -> None:
    network, _ = define(int8=False, can=capabilities(ALL - {"weak_typing", "plugin_v2"}))
    counted = Counter(layer.verb for layer in network.layers)
    assert {"EmbLayerNorm", "QKVToContext", "SkipLayerNorm"} & {*counted} == set()
    assert (counted["add_attention_v2"], counted["add_normalization"], counted["add_gather"]) == (2, 5, 3 + 2 * 3)
    assert sorted(network.inputs) == sorted(Packed(positions=True).sizes(Profile(*[Shape(2, 16)] * 3)))
    io = api.trt.AttentionIOForm.PACKED_NHD
    starts = network.inputs["cu_seqlens"][0]
    for attention in network.of("add_attention_v2"):
        assert (attention.query_form, attention.key_value_form, attention.query_lengths) == (io, io, starts)
        assert attention.key_value_lengths.maker.arguments == (starts,)
    # The first rows of the product are all queries, then come all keys and all values.
    parts = [layer.arguments[1].maker.arguments[1].tolist() for layer in network.of("add_gather")[3:]]
    assert parts == [0, 1, 2] * 2
    assert all(layer.epsilon == 1e-12 for layer in network.of("add_normalization"))
    used = [tensor for layer in network.layers for tensor in layer.arguments if isinstance(tensor, Tensor)]
    assert all(tensor in used for tensor, _ in network.inputs.values())


PACKED = {"padded_heads": True, "native": False}
MATMUL, CONVOLUTION = ({**PACKED, "products": products} for products in ("matmul", "convolution"))
CUBIC = {**CONVOLUTION, "gelu": "cubic"}


@pytest.mark.parametrize(
    ("precision", "options", "expected_notes"),
    [
        ("fp16", {}, {**MATMUL, "attention": "fp16", "norms": "fp16", "gelu": "sigmoid"}),
        ("int8", {}, {**CUBIC, "attention": "int8", "norms": "fp16", "scale_max_layers": 2}),
        ("int8", {"scale_max": "off"}, {**CUBIC, "attention": "int8", "norms": "fp16", "scale_max_layers": 0}),
        ("int8", {"attention": "fp16", "gelu": "erf"},
         {**CONVOLUTION, "attention": "fp16", "norms": "fp16", "gelu": "erf"}),
        ("int8", {"layout": "fixed"}, {**CUBIC, "attention": "int8", "norms": "fp16", "attention_unfused": []}),
        ("fp32", {"layout": "fixed"},
         {**MATMUL, "attention": "fp32", "norms": "fp32", "gelu": "erf", "attention_unfused": ["8x128"]}),
    ],
)  # fmt: skip
def test_a_definition_fills_the_network_and_notes_its_choices(
    precision: str, options: dict[str, Any], expected_notes: dict[str, Any], api: TensorRTApi, sources: Sources
) -> None:
    source, network = sources(), Recorder()
    source = source if precision == "int8" else replace(source, ranges=None)
    requested = spec(precision, **options)
    target = BuildTarget(api, MagicMock(), network, MagicMock(), MagicMock())
    layout, notes = define_from_weights(target, requested, source)
    assert notes == expected_notes
    assert {*network.inputs} == {*layout.sizes(Profile(*[Shape(8, 128)] * 3))}
    assert network.output is not None
    if expected_notes["attention"] == "int8":
        assert source.ranges is not None
        ranges = json.loads(source.ranges.path.read_text())
        # The padding of heads from 32 to 64 multiplies queries by the square root of 2.
        shared = (ranges["0/query"] * 2**0.5 * ranges["0/key"]) ** 0.5
        assert network.named("0/qkv").get_output(0).range == pytest.approx(shared)


def test_attention_without_the_embedding_plugin_gets_the_starts_as_mask(define: Define) -> None:
    network, _ = define(positions=512)
    starts, longest = network.inputs["cu_seqlens"][0], network.inputs["max_seqlen"][0]
    assert network.named("0/attention").arguments[1][1:] == [starts, starts, longest]
    assert network.of("EmbLayerNorm") == []


@pytest.mark.parametrize("sequence", [128, -1])
def test_a_single_padded_length_is_fixed_in_the_inputs(sequence: int, define: Define) -> None:
    network, _ = define(packed=False, sequence=sequence)
    assert {sizes for _, sizes in network.inputs.values()} == {(sequence, -1)}
    assert "use_int8_scale_max" not in network.fields("0/attention")


def test_the_choice_of_scale_max_reaches_the_plugin(define: Define) -> None:
    assert define()[0].fields("0/attention")["use_int8_scale_max"] == 1
    assert define(scale_max="off")[0].fields("1/attention")["use_int8_scale_max"] == 0
    assert "use_int8_scale_max" not in define(int8_attention=False)[0].fields("1/attention")


def test_products_excluded_from_int8_are_fp16(define: Define, api: TensorRTApi) -> None:
    network, _ = define(leave_out=("*layer.0/attention/self/*", "*layer.1/intermediate/*"))
    half = api.trt.DataType.HALF
    assert {layer.name for layer in network.layers if layer.precision is half} == {"0/qkv", "1/up"}
    assert [network.fields(f"{layer}/attention")["type_id"] for layer in (0, 1)] == [1, 2]
    assert network.named("0/qkv").types == {0: half}


@pytest.mark.parametrize("family", ["bert", "electra"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"shift": True}, {"INT8": {"0/down", "1/down"}}),
        ({"obey": True, "int8": False}, {"HALF": {"0/qkv", "1/qkv"}}),
        ({"obey": True}, {"INT8": {"0/qkv", "1/qkv"}}),
        ({"obey": True, "leave_out": ("*layer.0/attention/self/*",)}, {"INT8": {"1/qkv"}, "HALF": {"0/qkv"}}),
    ],
)
def test_products_have_the_requested_precision(
    changes: dict[str, Any], expected: dict[str, set[str]], family: str, define: Define, api: TensorRTApi
) -> None:
    network, _ = define(family, **changes)
    types = api.trt.DataType
    for kind in ("INT8", "HALF"):
        names = {layer.name for layer in network.layers if layer.precision is getattr(types, kind)}
        expected_names = set(expected.get(kind, ()))
        assert names >= expected_names
        if "obey" not in changes:
            assert names == expected_names
        elif kind == "INT8" and expected_names:
            assert {f"{index}/{name}" for index in (0, 1) for name in ("attended", "up", "down")} < names
            # The input of the projection has no range.
            assert "projection" not in names


def test_marked_points_are_the_output(define: Define) -> None:
    network, _ = define(marked=("0/attended", "1/up", "1/output"), int8=False)
    ((joined,),) = [layer.arguments for layer in network.of("add_concatenation")]
    assert len(joined) == 3
    makers = [layer.arguments[0].maker.name for layer in network.of("add_identity")]
    assert makers == ["0/attended", "1/up", "1/output_norm"]


@pytest.mark.parametrize("interleaved", [False, True])
def test_query_key_and_value_are_in_the_order_of_the_kernels(
    interleaved: bool, define: Define, sources: Sources
) -> None:
    network, _ = define(interleaved=interleaved, int8=interleaved)
    source = sources()
    assert source.arrays is not None
    assert source.ranges is not None
    arrays = pad_heads(dict(np.load(source.arrays.path)), 64)
    if interleaved:
        arrays, _ = equalize_ranges(arrays, json.loads(source.ranges.path.read_text()), 2**0.5)
    _, out, _, kernel, bias = network.named("0/qkv").arguments
    assert out == 3 * 128
    head, part = 1, 2  # the value of the second head
    place = part * 2 + head if interleaved else head * 3 + part
    rows = slice(place * 64, (place + 1) * 64)
    np.testing.assert_array_equal(kernel[rows], arrays["0/qkv_weight"][part, head])
    np.testing.assert_array_equal(bias[rows], arrays["0/qkv_bias"][part, head])
