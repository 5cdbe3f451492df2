"""The network of plugins, recorded by a stand-in for TensorRT's: which layers it has, with which fields and ranges."""

from __future__ import annotations

import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from test_tensorrt_plugin import INT8, spec

from backends.base import BuildSpec, Shape, SourceForm, Unsupported
from backends.cache import ArtifactCache
from backends.onnx_source import prepare_source
from backends.tensorrt_ import capabilities
from backends.tensorrt_.capabilities import Capabilities
from backends.tensorrt_.layout import Columns, Packed
from backends.tensorrt_.plugin_choices import Choices, check_left, check_sizes, choices_of
from backends.tensorrt_.profiles import Profile
from backends.weights import pad_heads


class Recorder:
    """Stands in for a network: remembers the layers that were added, and gives tensors that remember their layer."""

    def __init__(self) -> None:
        self.added: list[tuple[str, tuple[Any, ...]]] = []
        self.ranges: list[float] = []
        self.layers: list[Any] = []

    def __getattr__(self, verb: str) -> Any:
        if not verb.startswith(("add_", "mark_")):
            raise AttributeError(verb)

        def add(*arguments: Any) -> Any:
            self.added.append((verb, arguments))
            return self.layer() if verb != "add_input" else self.tensor()

        return add

    def layer(self) -> Any:
        made = SimpleNamespace(get_output=lambda index: self.tensor(), set_output_type=lambda index, kind: None)
        self.layers.append(made)
        return made

    def tensor(self) -> Any:
        return SimpleNamespace(shape=(-1, 1, 1, 1), set_dynamic_range=lambda low, high: self.ranges.append(high))


@pytest.fixture
def plugin_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """backends.tensorrt_.plugin_network over a TensorRT of which nothing is real but that arrays pass through it."""
    fake = MagicMock()
    fake.Weights = lambda array: array
    fake.__spec__ = ModuleSpec("tensorrt", None)  # torch asks for it
    names = ("plugin_network", "plugins", "pointwise")
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    for name in names:
        monkeypatch.delitem(sys.modules, f"backends.tensorrt_.{name}", raising=False)
    able = Capabilities(**{name: name != "strong_typing" for name in Capabilities.__dataclass_fields__})
    monkeypatch.setattr(capabilities, "installed", lambda: able)
    yield importlib.import_module("backends.tensorrt_.plugin_network")
    for name in names:
        sys.modules.pop(f"backends.tensorrt_.{name}", None)


@pytest.mark.parametrize("family", ["bert", "electra"])
@pytest.mark.parametrize(
    ("packed", "products", "gelu", "positions"),
    [
        (True, "convolution", "sigmoid", 128),
        (True, "convolution", "cubic", 128),
        (True, "matmul", "erf", 512),
        (False, "plugin", "plugin", 128),
    ],
)
def test_a_network_has_the_layers_of_the_model(
    packed: bool, products: str, gelu: str, positions: int, family: str, plugin_network: Any,
    tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    network, called = Recorder(), []

    def add_plugin(_: Any, name: str, version: int, inputs: Any, fields: dict[str, Any], layer: str) -> Any:
        called.append((name.removeprefix("Custom").removesuffix("PluginDynamic"), version, len(inputs), fields))
        return network.layer()

    monkeypatch.setattr(plugin_network, "add_plugin", add_plugin)
    form = SourceForm(arrays=True, ranges=True)
    source = prepare_source(*tiny(family), form, INT8, ["a line"], 0, shared_cache)
    assert source.arrays is not None
    assert source.ranges is not None
    arrays = pad_heads(dict(np.load(source.arrays.path)), 64)
    choices = Choices(packed, False, True, products, gelu, True, False, positions)
    notes = {"layers": 2, "heads": 2, "hidden": 128}
    ranges = json.loads(source.ranges.path.read_text())
    plugin_network.PluginNetwork(network, choices, arrays, notes, ranges).define()

    kinds = Counter(name for name, *_ in called)
    projected = int(family == "electra")
    assert kinds == Counter({"EmbLayerNorm": 1, "QKVToContext": 2, "SkipLayerNorm": 4}) + Counter(
        {"FC": 8 + projected, "Gelu": 2} if products == "plugin" else {}
    )
    assert {version for name, version, *_ in called if name not in ("FC", "Gelu")} == {2 if packed else 1}
    attention = next(fields for name, *_, fields in called if name == "QKVToContext")
    assert (attention["type_id"], attention["hidden_size"], attention["num_heads"]) == (2, 128, 2)
    assert {fields["type_id"] for name, *_, fields in called if name == "SkipLayerNorm"} == {1}
    assert attention["dq_probs"] == ranges["0/probs"] / 127
    # Every point of every layer has its range, as often as the tensor is made: all but what softmax keeps to itself,
    # and what GELU reads.
    unranged = ("/probs", "/up")
    assert sorted(network.ranges) == sorted(held for point, held in ranges.items() if not point.endswith(unranged))
    verbs = Counter(verb for verb, _ in network.added)
    inputs = [arguments[0] for verb, arguments in network.added if verb == "add_input"]
    expected = plugin_network_inputs(packed, positions)
    assert sorted(inputs) == sorted(expected)
    assert verbs["add_convolution_nd"] == (8 + projected if products == "convolution" else 0)
    assert verbs["add_matrix_multiply"] == (8 + projected if products == "matmul" else 0)
    assert verbs["add_gather"] == (3 if packed and positions > 384 else 0)
    assert verbs["add_unary"] == (2 if gelu == "erf" else 0)
    assert verbs["add_activation"] == {"sigmoid": 4, "cubic": 2}.get(gelu, 0)
    # A layer of GELU, or a constant in it, that is not held in FP32 may be computed in half of it.
    numbers = {"erf": 3, "sigmoid": 5, "cubic": 5}.get(gelu, 0)
    operations = {"erf": 5, "sigmoid": 13, "cubic": 8}.get(gelu, 0)
    full = plugin_network.trt.DataType.FLOAT
    assert sum(vars(layer).get("precision") is full for layer in network.layers) == 2 * (numbers + operations)
    assert verbs["mark_output"] == 1


def plugin_network_inputs(packed: bool, positions: int) -> list[str]:
    layout = Packed(positions=positions > 384) if packed else Columns()
    shape = Shape(2, positions)
    return list(layout.sizes(Profile(shape, shape, shape)))


def test_an_interleaved_network_is_of_version_three_without_a_mask(
    plugin_network: Any, tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    network, called = Recorder(), []

    def add_plugin(_: Any, name: str, version: int, inputs: Any, fields: dict[str, Any], layer: str) -> Any:
        called.append((name, version, len(inputs), set(fields)))
        return network.layer()

    monkeypatch.setattr(plugin_network, "add_plugin", add_plugin)
    form = SourceForm(arrays=True, ranges=True)
    source = prepare_source(*tiny("bert"), form, INT8, ["a line"], 0, shared_cache)
    assert source.arrays is not None
    assert source.ranges is not None
    arrays, ranges = dict(np.load(source.arrays.path)), json.loads(source.ranges.path.read_text())
    choices = Choices(True, True, True, "convolution", "erf", True, True, 128)
    plugin_network.PluginNetwork(network, choices, arrays, {"layers": 2, "heads": 2, "hidden": 64}, ranges).define()
    layers = {(name, version, inputs, frozenset(fields)) for name, version, inputs, fields in called[1:]}
    assert layers == {
        (plugin_network.plugins.ATTENTION, 3, 3, frozenset({"hidden_size", "num_heads", "dq_probs"})),
        (plugin_network.plugins.SKIP_NORM, 3, 2, frozenset({"beta", "gamma"})),
    }
    assert sum(verb == "add_shuffle" for verb, _ in network.added) == 2


@pytest.mark.parametrize(
    ("asked", "hidden", "found"),
    [
        (spec("int8"), 768, ("int8", "int8")),
        (spec("int8"), 384, ("int8", "fp16")),
        (spec("int8", attention="fp16"), 768, ("fp16", "int8")),
        (spec("int8", layout="fixed"), 768, ("int8", "int8")),
        (spec("int8", layout="fixed", profiles="dynamic", max=[8, 256]), 768, ("fp16", "int8")),
        (spec("fp16"), 768, ("fp16", "fp16")),
        (spec("fp32", layout="fixed"), 768, ("fp32", "fp32")),
    ],
)
def test_int8_goes_where_there_are_kernels(asked: BuildSpec, hidden: int, found: tuple[str, str]) -> None:
    assert tuple(choices_of(asked, hidden).notes().values()) == found


def test_what_is_left_out_of_int8_is_half(
    plugin_network: Any, tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    network, kinds = Recorder(), {}

    def add_plugin(_: Any, name: str, version: int, inputs: Any, fields: dict[str, Any], layer: str) -> Any:
        kinds[layer] = fields.get("type_id")
        return network.layer()

    monkeypatch.setattr(plugin_network, "add_plugin", add_plugin)
    form = SourceForm(arrays=True, ranges=True)
    asked = {**INT8, "leave_out": ["*layer.0/attention/self/*", "*layer.1/intermediate/*"]}
    source = prepare_source(*tiny("bert"), form, asked, ["a line"], 0, shared_cache)
    assert source.arrays is not None
    assert source.ranges is not None
    left = source.ranges.notes["left"]
    assert left == ["0/attention", "0/qkv", "1/up"]
    arrays, ranges = dict(np.load(source.arrays.path)), json.loads(source.ranges.path.read_text())
    choices = Choices(True, False, True, "convolution", "erf", True, False, 128)
    notes = {"layers": 2, "heads": 2, "hidden": 64}
    plugin_network.PluginNetwork(network, choices, arrays, notes, ranges, left).define()
    named = {layer.name: layer for layer in network.layers if hasattr(layer, "name")}
    assert {name for name, layer in named.items() if hasattr(layer, "precision")} == {"0/qkv", "1/up"}
    assert (kinds["0/attention"], kinds["1/attention"]) == (1, 2)


@pytest.mark.parametrize(
    ("interleaved", "packed", "left", "says"),
    [
        (False, True, ["0/attention"], ""),
        (True, True, ["0/up"], "INT8 throughout"),
        (False, False, ["0/up"], ""),
        (False, False, ["0/attention"], "one mask for all layers"),
    ],
)
def test_what_cannot_be_left_out_says_so(interleaved: bool, packed: bool, left: list[str], says: str) -> None:
    choices = Choices(packed, interleaved, True, "convolution", "erf", True, True, 128)
    with pytest.raises(Unsupported, match=says) if says else nullcontext():
        check_left(choices, left)


@pytest.fixture
def arrays(tiny: Callable[[str], tuple[Path, str]], shared_cache: ArtifactCache) -> dict[str, Any]:
    """Weights of a tiny BERT: two layers, two heads, hidden 64."""
    source = prepare_source(*tiny("bert"), SourceForm(arrays=True), {}, [], 0, shared_cache)
    assert source.arrays is not None
    return dict(np.load(source.arrays.path))


def test_marked_points_are_the_output(
    plugin_network: Any, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, points = Recorder(), ["0/attended", "1/gelu", "1/output"]
    monkeypatch.setattr(plugin_network, "add_plugin", lambda *_: network.layer())
    choices = Choices(True, False, True, "convolution", "erf", False, False, 128)
    notes = {"layers": 2, "heads": 2, "hidden": 64}
    plugin_network.PluginNetwork(network, choices, arrays, notes, {}, (), points).define()
    ((joined,),) = [arguments for verb, arguments in network.added if verb == "add_concatenation"]
    assert len(joined) == 3
    assert sum(verb == "add_identity" for verb, _ in network.added) == 3


@pytest.mark.parametrize(
    ("positions", "hidden", "says"),
    [(384, 768, ""), (385, 768, "stops at 384 tokens"), (128, 384, "hidden sizes 768 and 1024, not 384")],
)
def test_interleaved_kernels_have_their_sizes(positions: int, hidden: int, says: str, plugin_network: Any) -> None:
    choices = Choices(True, True, True, "convolution", "erf", True, True, positions)
    with pytest.raises(Unsupported, match=says) if says else nullcontext():
        check_sizes(choices, 512, hidden)


@pytest.mark.parametrize("interleaved", [False, True])
def test_query_key_and_value_lie_by_head(
    interleaved: bool, plugin_network: Any, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Recorder()
    monkeypatch.setattr(plugin_network, "add_plugin", lambda *_: network.layer())
    choices = Choices(True, interleaved, True, "convolution", "erf", False, False, 128)
    plugin_network.PluginNetwork(network, choices, arrays, {"layers": 2, "heads": 2, "hidden": 64}, {}).define()
    _, out, _, kernel, bias = next(arguments for verb, arguments in network.added if verb == "add_convolution_nd")
    assert out == 3 * 64
    assert network.ranges == []
    head, part = 1, 2  # the value of the second head
    place = part * 2 + head if interleaved else head * 3 + part
    rows = slice(place * 32, (place + 1) * 32)
    np.testing.assert_array_equal(kernel[rows], arrays["0/qkv_weight"][part, head])
    np.testing.assert_array_equal(bias[rows], arrays["0/qkv_bias"][part, head])
