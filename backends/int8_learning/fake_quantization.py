"""Fake quantization of an encoder: INT8 rounding in FP32 arithmetic at the places of the Q/DQ pairs, with a gradient.

Weights are rounded per output channel and activations per tensor, symmetrically to -127..127. The gradient ignores the
rounding, and it is 0 for clipped values (Jacob et al., arXiv:1712.05877, section 3). The ranges of activations are
learned together with the weights (Esser et al., arXiv:1902.08153).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

import torch
from torch.nn.utils import parametrize
from transformers import AttentionInterface

from backends.model.families import layer_names_of
from backends.model.layer_names import PROJECTION, WEIGHT_PRODUCTS, LayerNames, node_path
from backends.onnx_.ranges import PLUGIN_OPERATIONS

Tensor = torch.Tensor

LEVELS = 127
SMALLEST_RANGE = 1e-6
"""Smallest range of an activation."""

INITIAL_SHARE = 0.9999
"""Share of the first batch's values inside the initial range. If the initial range is min-max (all values), the error
of minilm hardly falls, because the few largest values of the feed-forward block use up the levels."""

BLOCK_INPUTS = {"attention": ("ffn_up",), "output": ("query", "key", "value"), "embeddings": ("query", "key", "value")}
"""Points (backends/model/layer_names.py) that are the input of a layer or of its feed-forward block, and the products
that read them. The block also adds this tensor to its own output, so a Q/DQ pair there comes before all readers,
including the addition."""

RESIDUALS = {"query": "attention_residual", "ffn_up": "ffn_residual"}
"""The addition of the block that begins with a product."""


def fake_quantize(values: Tensor, largest: Tensor) -> Tensor:
    """Round `values` to the nearest of 255 levels from -largest to largest. The gradient is that of clipping alone."""
    scale = largest.clamp_min(1e-12) / LEVELS
    levels = (values / scale).clamp(-LEVELS, LEVELS)
    return (levels + (torch.round(levels) - levels).detach()) * scale


class WeightRounding(torch.nn.Module):
    """Parametrization that rounds a weight [out, in] per output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        return fake_quantize(weight, weight.detach().abs().amax(1, keepdim=True))


class ActivationRounding(torch.nn.Module):
    """Rounding of one activation tensor with a learned range.

    The parameter is the logarithm of the range. So the range stays positive, and a step changes it by a factor.

    Attributes:
        logarithm: natural logarithm of the range, a scalar FP32 parameter.
        started: whether the range was set.
        observing: if true, nothing is rounded and the range becomes the largest absolute value seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = torch.nn.Parameter(torch.zeros(()))
        self.started = False
        self.observing = False

    @property
    def largest(self) -> Tensor:
        return self.logarithm.exp()

    def set_range(self, largest: float) -> None:
        """Set the range."""
        self.logarithm.data.fill_(math.log(max(largest, SMALLEST_RANGE)))
        self.started = True

    def forward(self, values: Tensor) -> Tensor:
        if self.observing:
            largest = float(values.detach().abs().max())
            self.set_range(max(largest, float(self.largest.detach())) if self.started else largest)
            return values
        if not self.started:
            magnitudes = values.detach().abs().flatten()
            inside = max(1, round(INITIAL_SHARE * len(magnitudes)))
            self.logarithm.data = magnitudes.kthvalue(inside).values.clamp_min(SMALLEST_RANGE).log()
            self.started = True
        return fake_quantize(values, self.largest)


def round_encoder(
    encoder: torch.nn.Module,
    nodes: Collection[str],
    whole: bool = False,
    leave_out: Collection[str] = (),
    exact: bool = False,
) -> dict[str, ActivationRounding]:
    """Add INT8 rounding to `encoder` at the places of Q/DQ pairs around `nodes`.

    Args:
        encoder: an encoder that was loaded with attention "rounded". It is changed in place.
        nodes: names from NODES of backends/model/layer_names.py.
        whole: for plugins. An operation (PLUGIN_OPERATIONS of backends/onnx_/ranges.py) is rounded completely or not at
            all.
        leave_out: fnmatch patterns of nodes of the exported graph that are not quantized.
        exact: whether operations that are not quantized, such as an addition, read a tensor before it is rounded for
            its other readers.

    Returns:
        The rounding of each activation, by the place of its tensor in the exported graph: "<node> <input or output>
        <index>".
    """
    activations: dict[str, ActivationRounding] = {}
    by_reader: dict[tuple[int, str], ActivationRounding] = {}
    # Node names of the exporter, for a module that contains the encoder: /encoder/encoder/layer.0/attention/self/query
    modules = {f"/encoder/{node_path(name)}": module for name, module in encoder.named_modules()}
    names = layer_names_of(encoder.config.to_dict())  # type: ignore[operator, union-attr]  # a model of transformers
    chosen = _chosen(modules, names, nodes, whole, leave_out)
    block_inputs = _block_inputs(modules, names)
    for path, module in modules.items():
        (layer, product), parent = _product(path, names), path.rpartition("/")[0]
        if (layer, product) in chosen:
            parametrize.register_parametrization(module, "weight", WeightRounding())
        if (layer, product) in chosen and product in ("attention_output", "ffn_down"):
            module.register_forward_pre_hook(
                _before(activations.setdefault(f"{path}/MatMul input 0", ActivationRounding()))
            )
        if product == "query":
            modules[parent].rounds_shares = (layer, "context") in chosen  # attend reads it
        place = _place_after(path, layer, product, chosen)
        if path in block_inputs:
            output, reader_layer, readers = block_inputs[path]
            rounding = {reader for reader in (*readers, RESIDUALS[readers[0]]) if (reader_layer, reader) in chosen}
            if rounding and (not exact or RESIDUALS[readers[0]] in rounding):
                place = output
            elif rounding:
                activation = activations.setdefault(output, ActivationRounding())
                by_reader |= {(reader_layer, reader): activation for reader in rounding}
        if place:
            module.register_forward_hook(_after(activations.setdefault(place, ActivationRounding())))
    for path, module in modules.items():
        if input_rounding := by_reader.get(_product(path, names)):
            module.register_forward_pre_hook(_before(input_rounding))
    return activations


def _product(path: str, names: LayerNames) -> tuple[int, str]:
    """Return the layer and the weight product of a module; -1 and an empty name for other modules."""
    layer, product = names.node_at(f"{path}/MatMul") or (-1, "")
    return (layer, product) if product in WEIGHT_PRODUCTS else (-1, "")


def _block_inputs(modules: Collection[str], names: LayerNames) -> dict[str, tuple[str, int, tuple[str, ...]]]:
    """Return the modules whose output is the input of a block, by path: its place, and the layer and names of readers.

    A projection replaces the norm before it. No product reads the output of the last norm.
    """
    inputs: dict[str, tuple[str, int, tuple[str, ...]]] = {}
    for path in modules:
        for operation in ("LayerNormalization", "Add"):
            layer, _, point = names.point_at(f"{path}/{operation}").rpartition("/")
            if point == PROJECTION:
                inputs.clear()
                point = "embeddings"
            if point in BLOCK_INPUTS:
                # The next layer reads the output of a layer. The first layer reads the embeddings.
                reader_layer = 0 if point == "embeddings" else int(layer) + (point == "output")
                inputs[path] = (f"{path}/{operation} output 0", reader_layer, BLOCK_INPUTS[point])
    inputs.popitem()
    return inputs


def _place_after(path: str, layer: int, product: str, chosen: Collection[tuple[int, str]]) -> str:
    """Return the place of the rounding of a weight product's output; "" if no operation that reads it is rounded."""
    parent = path.rpartition("/")[0]
    place, reader = {
        "query": (f"{parent}/MatMul input 0", "scores"),
        "key": (f"{parent}/MatMul input 1", "scores"),
        "value": (f"{parent}/MatMul_1 input 1", "context"),
        "attention_output": (f"{path}/Add output 0", "attention_residual"),
        "ffn_down": (f"{path}/Add output 0", "ffn_residual"),
    }.get(product, ("", ""))
    return place if (layer, reader) in chosen else ""


def _chosen(
    modules: Collection[str], names: LayerNames, nodes: Collection[str], whole: bool, leave_out: Collection[str]
) -> set[tuple[int, str]]:
    """Return the (layer, node) pairs of `nodes` that are rounded."""
    places = {path: _product(path, names) for path in modules}
    layers = {n: path.removesuffix(node_path(names.query)) for path, (n, kind) in places.items() if kind == "query"}
    chosen = {
        (layer, kind)
        for layer, layer_path in layers.items()
        for kind, node in names.nodes.items()
        if kind in nodes and not any(fnmatchcase(f"{layer_path}{node}", pattern) for pattern in leave_out)
    }
    if whole:
        for layer in layers:
            for group in PLUGIN_OPERATIONS.values():
                together = {(layer, node) for node in group}
                chosen -= set() if together <= chosen else together
    return chosen


def _before(rounding: ActivationRounding) -> Callable[[torch.nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda module, inputs: (rounding(inputs[0]), *inputs[1:])


def _after(rounding: ActivationRounding) -> Callable[[torch.nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    return lambda module, inputs, output: rounding(output)


def register_attention() -> None:
    """Register attention "suites_rounded" with transformers. `round_encoder` sets if it rounds probabilities."""
    largest = torch.ones(())  # probabilities are at most 1

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: object
    ) -> tuple[Tensor, None]:
        scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5
        probabilities = torch.softmax(scores.masked_fill(~attention_mask, float("-inf")), dim=-1)
        if module.rounds_shares:
            probabilities = fake_quantize(probabilities, largest.to(probabilities))
        return torch.matmul(probabilities, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("suites_rounded", attend)
