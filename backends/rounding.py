"""Fake quantization of an encoder: INT8 rounding in FP32 arithmetic, where Q/DQ pairs will stand, with a gradient.

Weights are rounded by output channel and activations by tensor, symmetrically to -127..127. The gradient goes through
the rounding as if it were not there, and not through what is clipped (Jacob et al., arXiv:1712.05877, section 3).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import torch
from torch.nn.utils import parametrize
from transformers import AttentionInterface

from backends.quantize import WEIGHT_PRODUCTS

Tensor = torch.Tensor

LEVELS = 127
DECAY = 0.95
"""Of the moving average that follows the largest absolute activation of each batch."""

NORMS = {
    "attention_norm": r"/(attention/output/LayerNorm|sa_layer_norm)$",
    "layer_norm": r"/(embeddings/LayerNorm|(?<!attention/)output/LayerNorm|output_layer_norm)$",
}
"""Norms by module: the one after attention, and those whose output a layer reads."""


def rounded(values: Tensor, largest: Tensor) -> Tensor:
    """`values` to the nearest of 255 levels up to `largest`, the gradient as if only clipped."""
    scale = largest.clamp_min(1e-12) / LEVELS
    clipped = values.clamp(-largest, largest)
    return clipped + (torch.round(clipped / scale) * scale - clipped).detach()


class Weight(torch.nn.Module):
    """Rounds a weight [out, in] by output channel."""

    def forward(self, weight: Tensor) -> Tensor:
        return rounded(weight, weight.detach().abs().amax(1, keepdim=True))


class Activation(torch.nn.Module):
    """Rounds a tensor by its range, which follows what comes by while `following`."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))
        self.following = True

    def forward(self, values: Tensor) -> Tensor:
        if self.following:
            now = values.detach().abs().max()
            seen = self.largest > 0
            self.largest = torch.where(seen, DECAY * self.largest + (1 - DECAY) * now, now)
        return rounded(values, self.largest)


def round_encoder(encoder: torch.nn.Module, nodes: Collection[str]) -> list[Activation]:
    """Have `encoder`, loaded after `register(nodes)`, round what Q/DQ around `nodes` rounds; gives the roundings of
    activations.

    Args:
        nodes: names out of backends/quantize.py's NODES.
    """
    roundings: list[Activation] = []

    def after(module: torch.nn.Module) -> None:
        rounding = _added(module, roundings)
        module.register_forward_hook(lambda _, inputs, output: rounding(output))

    def before(module: torch.nn.Module) -> None:
        rounding = _added(module, roundings)
        module.register_forward_pre_hook(lambda _, inputs: (rounding(inputs[0]), *inputs[1:]))

    multiplied = {"query": "scores", "key": "scores", "value": "context"}
    added = {"attention_output": "attention_residual", "ffn_down": "ffn_residual"}
    norms = {"attention_norm": "ffn_residual", "layer_norm": "attention_residual"}
    modules = {f"/{name.replace('.', '/')}": module for name, module in encoder.named_modules()}
    *_, last = (path for path in modules if _kind(path, NORMS))
    for path, module in modules.items():
        product = _kind(f"{path}/MatMul", WEIGHT_PRODUCTS)
        if product in nodes:
            parametrize.register_parametrization(module, "weight", Weight())
            before(module)
        if multiplied.get(product) in nodes or added.get(product) in nodes:
            after(module)
        # Nothing reads what the last norm gives.
        if path != last and norms.get(_kind(path, NORMS)) in nodes:
            after(module)
    return roundings


def _kind(path: str, patterns: dict[str, str]) -> str:
    return next((name for name, pattern in patterns.items() if re.search(pattern, path)), "")


def _added(module: torch.nn.Module, roundings: list[Activation]) -> Activation:
    """A new rounding on the device of `module`, whose weights it is no part of."""
    rounding = Activation().to(next(module.parameters()).device)
    roundings.append(rounding)
    return rounding


def register(nodes: Collection[str]) -> None:
    """Make attention known to transformers as "suites_rounded", its probabilities rounded if Q/DQ rounds them."""
    one, probabilities = torch.ones(()), "context" in nodes

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, **_: Any
    ) -> tuple[Tensor, None]:
        scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5
        shares = torch.softmax(scores.masked_fill(~attention_mask, float("-inf")), dim=-1)
        shares = rounded(shares, one.to(shares)) if probabilities else shares
        return torch.matmul(shares, value).transpose(1, 2).contiguous(), None

    AttentionInterface.register("suites_rounded", attend)
