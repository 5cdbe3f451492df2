"""Layers of the network of plugins, with their fields and ranges, recorded by a mock of TensorRT's network."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from test_tensorrt_plugin import INT8, spec

from backends.base import Shape, Source, SourceForm
from backends.cache import ArtifactCache
from backends.model.weights import equalize_ranges, pad_heads
from backends.onnx_.onnx_source import prepare_source
from backends.tensorrt_ import plugin_backend
from backends.tensorrt_.plugins.plugin_choices import Choices
from backends.tensorrt_.runtime import capabilities
from backends.tensorrt_.runtime.capabilities import Capabilities
from backends.tensorrt_.runtime.layout import Columns, Packed
from backends.tensorrt_.runtime.profiles import Profile


class Tensor:
    """Output of a layer, with the layer that made it and its range."""

    shape = (-1, 1, 1, 1)

    def __init__(self, maker: Layer | None = None) -> None:
        self.maker, self.range = maker, 0.0

    def set_dynamic_range(self, low: float, high: float) -> None:
        assert low == -high
        self.range = high


class Layer:
    def __init__(self, verb: str, arguments: tuple[Any, ...]) -> None:
        self.verb, self.arguments, self.name, self.precision = verb, arguments, "", None
        self.outputs = [Tensor(self), Tensor(self)]
        self.types: dict[int, Any] = {}

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def set_input(self, index: int, tensor: Tensor) -> None:
        self.arguments = (*self.arguments, tensor)

    def set_output_type(self, index: int, kind: Any) -> None:
        self.types[index] = kind


class Recorder:
    """Mock of a network, which records the added layers, including plugins."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.inputs: dict[str, tuple[Tensor, tuple[int, ...]]] = {}
        self.output: Any = None

    def __getattr__(self, verb: str) -> Any:
        if not verb.startswith("add_"):
            raise AttributeError(verb)

        def add(*arguments: Any) -> Layer:
            self.layers.append(Layer(verb, arguments))
            return self.layers[-1]

        return add

    def add_input(self, name: str, kind: Any, sizes: tuple[int, ...]) -> Tensor:
        self.inputs[name] = Tensor(), sizes
        return self.inputs[name][0]

    def mark_output(self, tensor: Tensor) -> None:
        assert self.output is None
        self.output = tensor

    def add_plugin(self, name: str, version: int, inputs: Any, fields: dict[str, Any], layer: str) -> Layer:
        plugin_layer = Layer(name.removeprefix("Custom").removesuffix("PluginDynamic"), (version, list(inputs), fields))
        plugin_layer.name = layer
        self.layers.append(plugin_layer)
        return plugin_layer

    def of(self, verb: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.verb == verb]

    def named(self, name: str) -> Layer:
        (layer,) = [layer for layer in self.layers if layer.name == name]
        return layer

    def fields(self, name: str) -> dict[str, Any]:
        fields: dict[str, Any] = self.named(name).arguments[2]
        return fields

    @property
    def ranges(self) -> list[float]:
        return sorted(tensor.range for layer in self.layers for tensor in layer.outputs if tensor.range)


@pytest.fixture
def plugin_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Module backends.tensorrt_.plugins.plugin_network with a mock of TensorRT. Its Weights returns the array
    itself."""
    fake = MagicMock()
    fake.Weights = lambda array: array
    fake.__spec__ = ModuleSpec("tensorrt", None)  # torch reads it
    names = (
        "plugins.plugin_network",
        "plugins.plugin_creators",
        "plugins.pointwise",
        "plugins.plain_layers",
        "build.precision",
    )
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    for name in names:
        monkeypatch.delitem(sys.modules, f"backends.tensorrt_.{name}", raising=False)
    missing = ("strong_typing", "packed_attention")
    simulated = Capabilities(**{name: name not in missing for name in Capabilities.__dataclass_fields__})
    monkeypatch.setattr(capabilities, "installed", lambda: simulated)
    module = importlib.import_module("backends.tensorrt_.plugins.plugin_network")
    monkeypatch.setattr(module, "add_plugin", lambda network, *arguments: network.add_plugin(*arguments))
    yield module
    for name in names:
        sys.modules.pop(f"backends.tensorrt_.{name}", None)


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
def define(sources: Sources, plugin_network: Any) -> Define:
    """Return a function that defines a packed INT8 network with convolutions and erf, changed by `changes`.

    The function returns the network and the ranges.
    """

    def build(
        family: str = "bert", leave_out: tuple[str, ...] = (), marked: tuple[str, ...] = (), int8: bool = True,
        **changes: Any,
    ) -> tuple[Recorder, dict[str, float]]:  # fmt: skip
        source, network = sources(family, leave_out), Recorder()
        assert source.arrays is not None
        assert source.ranges is not None
        ranges = json.loads(source.ranges.path.read_text()) if int8 else {}
        arrays = pad_heads(dict(np.load(source.arrays.path)), 64)
        if int8:
            arrays, ranges = equalize_ranges(arrays, ranges, 2**0.5)
        base = Choices(True, False, True, "convolution", "erf", int8, int8, 128)
        choices = Choices(**{**vars(base), **changes})
        notes, excluded = {"layers": 2, "heads": 2, "hidden": 128}, source.ranges.notes["left"]
        plugin_network.PluginNetwork(network, choices, arrays, notes, ranges, excluded, marked).define()
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
        (False, "plugin", "erf", 128),
        (False, "convolution", "erf", 128),
    ],
)
def test_a_network_has_the_layers_of_the_model(
    packed: bool, products: str, gelu: str, positions: int, family: str, define: Define, plugin_network: Any
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
    assert counted["add_unary"] == (2 if gelu == "erf" else 0)
    assert counted["add_activation"] == {"sigmoid": 4, "cubic": 2}.get(gelu, 0)
    # TensorRT may compute a layer or a constant of GELU in FP16 if its precision is not set to FP32.
    constants = {"erf": 3, "sigmoid": 5, "cubic": 5}[gelu]
    operations = {"erf": 5, "sigmoid": 13, "cubic": 8}[gelu]
    full = plugin_network.trt.DataType.FLOAT
    assert sum(layer.precision is full for layer in network.layers) == 2 * (constants + operations)
    assert network.output.name == "last_hidden_state"


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
    changes: dict[str, Any], without: list[str], define: Define, plugin_network: Any
) -> None:
    network, ranges = define(**changes)
    points = {"embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in ROUNDED)}
    assert network.ranges == sorted(ranges[point] for point in points - {*without})
    half = {layer.name for layer in network.of("add_convolution_nd") if layer.types}
    assert half == {point for point in without if not point.endswith("/output")}
    assert all(
        layer.types[0] is plugin_network.trt.DataType.HALF for layer in network.of("add_convolution_nd") if layer.types
    )
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


def test_a_release_with_packed_attention_needs_no_plugin(
    define: Define, plugin_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = replace(plugin_network.can, packed_attention=True, weak_typing=False, plugin_v2=False)
    for module in (plugin_network, sys.modules["backends.tensorrt_.plugins.plain_layers"]):
        monkeypatch.setattr(module, "can", simulated)
    network, _ = define(int8=False)
    counted = Counter(layer.verb for layer in network.layers)
    assert {"EmbLayerNorm", "QKVToContext", "SkipLayerNorm"} & {*counted} == set()
    assert (counted["add_attention_v2"], counted["add_normalization"], counted["add_gather"]) == (2, 5, 3 + 2 * 3)
    assert sorted(network.inputs) == sorted(Packed(positions=True).sizes(Profile(*[Shape(2, 16)] * 3)))
    io = plugin_network.trt.AttentionIOForm.PACKED_NHD
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
    precision: str, options: dict[str, Any], expected_notes: dict[str, Any], plugin_network: Any, sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(plugin_backend, "available", lambda: plugin_network.can)
    source, network = sources(), Recorder()
    source = source if precision == "int8" else replace(source, ranges=None)
    requested = spec(precision, **options)
    layout, notes = plugin_backend._define(requested, source, MagicMock(), network, MagicMock(), MagicMock())  # type: ignore[arg-type]
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


def test_products_excluded_from_int8_are_fp16(define: Define, plugin_network: Any) -> None:
    network, _ = define(leave_out=("*layer.0/attention/self/*", "*layer.1/intermediate/*"))
    half = plugin_network.trt.DataType.HALF
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
    changes: dict[str, Any], expected: dict[str, set[str]], family: str, define: Define, plugin_network: Any
) -> None:
    network, _ = define(family, **changes)
    types = plugin_network.trt.DataType
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
