"""Fake quantization of an encoder: INT8 rounding in FP32 arithmetic, where Q/DQ pairs will stand, with a gradient.

Weights are rounded by output channel and activations by tensor, symmetrically to -127..127. The gradient goes through
the rounding as if it were not there, and not through what is clipped (Jacob et al., arXiv:1712.05877, section 3); how
far an activation reaches is learned with the weights (Esser et al., arXiv:1902.08153).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch.nn.utils import parametrize
from transformers import AttentionInterface

from backends.quantize import WEIGHT_PRODUCTS
from backends.ranges import COMPUTED

Tensor = torch.Tensor

LEVELS = 127
LEAST = 1e-6
"""The smallest range."""

START = 0.9999
"""Share of the first batch's values that a range holds at first. Min-max, which holds all, hardly lets minilm's error
fall: the few largest values of the feed-forward block take every level."""

READ = {
    r"/(embeddings/LayerNorm|(?<!attention/)output/LayerNorm|output_layer_norm)$": ("query", "key", "value"),
    r"/embeddings_project$": ("query", "key", "value"),
    r"/(attention/output/LayerNorm|sa_layer_norm)$": ("ffn_up",),
}
"""Modules whose output is what a layer, or its feed-forward block, begins with, and the products that read it. It is
also added to the block's own output: Q/DQ there stands before all who read it, the addition too."""

RESIDUALS = {"query": "attention_residual", "ffn_up": "ffn_residual"}
ADDED = {"attention_output": ("attention_residual", "Add"), "ffn_down": ("ffn_residual", "Add_1")}
"""The addition that reads what a product gives, and its name in a DistilBERT."""


def rounded(values: Tensor, largest: Tensor) -> Tensor:
    """`values` to the nearest of 255 levels up to `largest`; the gradient is as if they were only clipped."""
    scale = largest.clamp_min(1e-12) / LEVELS
    levels = (values / scale).clamp(-LEVELS, LEVELS)
    return (levels + (torch.round(levels) - levels).detach()) * scale


class Weight(torch.nn.Module):
    """Rounds a weight [out, in] by output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        return rounded(weight, weight.detach().abs().amax(1, keepdim=True))


class Activation(torch.nn.Module):
    """Rounds a tensor by a range of its own, the exponential of a parameter: it stays positive and moves by shares.

    Attributes:
        watching: whether it rounds nothing and takes the largest value that it sees for its range.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logarithm = torch.nn.Parameter(torch.zeros(()))
        self.started = False
        self.watching = False

    @property
    def largest(self) -> Tensor:
        return self.logarithm.exp()

    def reach(self, largest: float) -> None:
        """Round by this range from now on."""
        self.logarithm.data.fill_(math.log(max(largest, LEAST)))
        self.started = True

    def forward(self, values: Tensor) -> Tensor:
        if self.watching:
            now = float(values.detach().abs().max())
            self.reach(max(now, float(self.largest.detach())) if self.started else now)
            return values
        if not self.started:
            sizes = values.detach().abs().flatten()
            kept = max(1, round(START * len(sizes)))
            self.logarithm.data = sizes.kthvalue(kept).values.clamp_min(LEAST).log()
            self.started = True
        return rounded(values, self.largest)


def round_encoder(
    encoder: torch.nn.Module,
    nodes: Collection[str],
    whole: bool = False,
    leave_out: Collection[str] = (),
    exact: bool = False,
) -> dict[str, Activation]:
    """Have `encoder`, loaded with attention "rounded", round what Q/DQ around `nodes` rounds.

    Args:
        nodes: names out of backends/quantize.py's NODES.
        whole: for plugins: what they compute in one piece (backends/ranges.py's COMPUTED) is left out as one.
        leave_out: patterns (fnmatch) of the exported graph's nodes that are left alone.
        exact: whether what is not rounded itself, such as an addition, reads a tensor as it was before it was rounded
            for others.

    Returns:
        The roundings of activations by the place of their tensor in the exported graph: "<node> <input or output>
        <index>".
    """
    found: dict[str, Activation] = {}
    before: dict[tuple[int, str], Activation] = {}
    # As the exporter names nodes, of a module that has the encoder in it: /encoder/encoder/layer.0/attention/self/query
    modules = {"/encoder/" + re.sub(r"\.(?!\d)", "/", name): module for name, module in encoder.named_modules()}
    chosen = _chosen(modules, nodes, whole, leave_out)
    begun = [path for path in modules if any(re.search(pattern, path) for pattern in READ)]
    # A projection takes the place of the norm before it, and nothing reads what the last norm gives.
    begun = begun[1:-1] if any(path.endswith("/embeddings_project") for path in begun) else begun[:-1]
    for path, module in modules.items():
        layer, product, parent = _layer(path), _kind(f"{path}/MatMul", WEIGHT_PRODUCTS), path.rpartition("/")[0]
        if (layer, product) in chosen:
            parametrize.register_parametrization(module, "weight", Weight())
        if (layer, product) in chosen and product in ("attention_output", "ffn_down"):
            module.register_forward_pre_hook(_before(found.setdefault(f"{path}/MatMul input 0", Activation())))
        if product == "query":
            modules[parent].rounds_shares = (layer, "context") in chosen  # read by attend
        place = {
            "query": f"{parent}/MatMul input 0" if (layer, "scores") in chosen else "",
            "key": f"{parent}/MatMul input 1" if (layer, "scores") in chosen else "",
            "value": f"{parent}/MatMul_1 input 1" if (layer, "context") in chosen else "",
            "attention_output": f"{path}/Add output 0" if (layer, "attention_residual") in chosen else "",
            "ffn_down": f"{path}/Add output 0" if (layer, "ffn_residual") in chosen else "",
        }.get(product, "")
        if path in begun:
            readers = next(products for pattern, products in READ.items() if re.search(pattern, path))
            # What ends a layer is read by the next one, and the embeddings (layer -1) by the first.
            reading = layer if readers == ("ffn_up",) else layer + 1
            read = f"{path}/{'Add' if path.endswith('_project') else 'LayerNormalization'} output 0"
            rounding = {reader for reader in (*readers, RESIDUALS[readers[0]]) if (reading, reader) in chosen}
            if rounding and (not exact or RESIDUALS[readers[0]] in rounding):
                place = read
            elif rounding:
                before |= {(reading, reader): found.setdefault(read, Activation()) for reader in rounding}
        if place:
            module.register_forward_hook(_after(found.setdefault(place, Activation())))
    for path, module in modules.items():
        if reader := before.get((_layer(path), _kind(f"{path}/MatMul", WEIGHT_PRODUCTS))):
            module.register_forward_pre_hook(_before(reader))
    return found


def _chosen(
    modules: Collection[str], nodes: Collection[str], whole: bool, leave_out: Collection[str]
) -> set[tuple[int, str]]:
    """Which of `nodes` are rounded in which layer."""
    names: dict[tuple[int, str], str] = {}
    for path in modules:
        layer, product, parent = _layer(path), _kind(f"{path}/MatMul", WEIGHT_PRODUCTS), path.rpartition("/")[0]
        if not product:
            continue
        own = {product: f"{path}/MatMul"}
        if product == "query":
            own |= {"scores": f"{parent}/MatMul", "context": f"{parent}/MatMul_1"}
        if product in ADDED:
            # A DistilBERT adds in the layer itself.
            residual, inside = ADDED[product]
            own[residual] = f"{parent}/Add" if path.endswith("/dense") else f"{parent.rpartition('/')[0]}/{inside}"
        names |= {(layer, node): name for node, name in own.items()}
    chosen = {
        (layer, node)
        for (layer, node), name in names.items()
        if node in nodes and not any(fnmatchcase(name, pattern) for pattern in leave_out)
    }
    if whole:
        for layer in {layer for layer, _ in names}:
            for group in COMPUTED.values():
                together = {(layer, node) for node in group}
                chosen -= set() if together <= chosen else together
    return chosen


def _layer(path: str) -> int:
    found = re.search(r"/layer\.(\d+)(/|$)", path)
    return int(found.group(1)) if found else -1


def _before(rounding: Activation) -> Callable[..., Any]:
    return lambda module, inputs: (rounding(inputs[0]), *inputs[1:])


def _after(rounding: Activation) -> Callable[..., Any]:
    return lambda module, inputs, output: rounding(output)


def _kind(path: str, patterns: Mapping[str, str]) -> str:
    """The name of the first pattern that `path` matches; empty if none does."""
    return next((name for name, pattern in patterns.items() if re.search(pattern, path)), "")


def register() -> None:
    """Make attention known to transformers as "suites_rounded"; `round_encoder` says where it rounds probabilities."""
    one = torch.ones(())

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5
        shares = torch.softmax(scores.masked_fill(~attention_mask, float("-inf")), dim=-1)
        shares = rounded(shares, one.to(shares)) if module.rounds_shares else shares
        return torch.matmul(shares, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("suites_rounded", attend)
