"""The layers of a packed encoder in FP8 on a GPU, with Triton kernels between the products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from backends.torch_.fp8_kernels import add_norm, attention
from backends.torch_.fp8_linear import Fp8Linear
from backends.torch_.fp8_products import linear, linear_gelu

if TYPE_CHECKING:
    from backends.torch_.packed_encoder import PackedModel


def fused_layers(model: PackedModel, x: torch.Tensor, layers: int, starts: torch.Tensor, longest: int) -> torch.Tensor:
    """Return the last hidden state [tokens, hidden] in FP16.

    Args:
        model: a model whose products of all layers are in FP8.
        x: output of the embeddings, FP16 [tokens, hidden].
        layers: number of layers.
        starts, longest: see `encode` in packed_encoder.py.
    """

    def layer(name: str) -> Fp8Linear:
        found = model.products[name]
        assert isinstance(found, Fp8Linear)
        return found

    def norm(name: str) -> list[torch.Tensor]:
        return [model.weights[f"{name}_gamma"], model.weights[f"{name}_beta"]]

    rounded = layer("0/qkv").rounded(x)
    for number in range(layers):
        qkv, output, up, down = (layer(f"{number}/{name}") for name in ("qkv", "output", "up", "down"))
        parts = linear(rounded, qkv).view(len(x), *model.weights[f"{number}/qkv_bias"].shape)
        context = attention(parts, starts, longest, output.inverse)
        after_attention = norm(f"{number}/attention")
        x, rounded = add_norm(linear(context, output), x, after_attention, up.inverse, model.epsilon)
        product = linear(linear_gelu(rounded, up, down.inverse), down)
        gamma, beta = norm(f"{number}/output")
        if number == layers - 1:
            return functional.layer_norm(product + x, gamma.shape, gamma, beta, model.epsilon)
        x, rounded = add_norm(product, x, [gamma, beta], layer(f"{number + 1}/qkv").inverse, model.epsilon)
    return x
