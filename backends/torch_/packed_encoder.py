"""The packed encoder as plain functions of its weights, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional

from backends.base import BuildSpec
from backends.model.output_head import OutputHead
from backends.options import Switch
from backends.torch_.description import CompileMode, PackedMode, PackedOptions
from backends.torch_.fp8_gelu import tail_gelu
from backends.torch_.fp8_linear import MULTIPLE, Fp8Linear
from backends.torch_.packed_head import packed_output

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class PackedModel:
    """Encoder and head on packed tokens.

    Attributes:
        weights: tensors with the names and shapes of backends/model/weights.py, without the weights of `products`.
        epsilon: epsilon of layer normalization.
        head: None for hidden states.
        products: matrix products in FP8, by name (see `product_weights`). The other products have the type of the
            weights.
        fused: whether the layers are computed by Triton kernels, see packed_fp8.py and `fuses`.
    """

    weights: Tensors
    epsilon: float
    head: OutputHead | None = None
    products: torch.nn.ModuleDict = field(default_factory=torch.nn.ModuleDict)
    fused: bool = False

    def run(self, inputs: Tensors, longest: int) -> torch.Tensor:
        """Return [batch, ...], or [tokens, ...] if the output has values for each token; see `encode`."""
        hidden = encode(self, inputs, longest)
        return hidden if self.head is None else packed_output(self.head, hidden, inputs)

    def product(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """Return the product `name` of `x` [tokens, features], with its bias."""
        if name in self.products:
            result: torch.Tensor = self.products[name](x)
            return result
        return functional.linear(x, *product_weights(self.weights, name))

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        gamma, beta = self.weights[f"{name}_gamma"], self.weights[f"{name}_beta"]
        return functional.layer_norm(x, gamma.shape, gamma, beta, self.epsilon)


def product_weights(weights: Tensors, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight [outputs, inputs] and the bias [outputs] of a product.

    Args:
        name: "projection", or "<layer>/qkv", "<layer>/output", "<layer>/up" or "<layer>/down".
    """
    weight, bias = weights[f"{name}_weight"], weights[f"{name}_bias"]
    if name.endswith("/qkv"):
        return weight.flatten(0, 2), bias.flatten()
    return weight.flatten(1), bias


def fp8_products(weights: Tensors, ranges: Mapping[str, float]) -> torch.nn.ModuleDict:
    """Return the FP8 products of an encoder, by name. A product stays out if its sizes do not fit.

    Args:
        weights: all weights in FP32, see PackedModel.
        ranges: largest inputs of the products that become FP8.

    Raises:
        Unsupported: a product has no scale.
    """
    products = torch.nn.ModuleDict()
    for name, largest in ranges.items():
        weight, bias = product_weights(weights, name)
        if not any(size % MULTIPLE for size in weight.shape):
            products[name] = Fp8Linear(weight, bias, largest, name)
    return products


def fuses(weights: Tensors, products: torch.nn.ModuleDict) -> bool:
    """Return whether packed_fp8.py supports an encoder: on a GPU, with all products of its layers in FP8."""
    biases = [
        name.removesuffix("_bias")
        for name in weights
        if name.endswith(("qkv_bias", "output_bias", "up_bias", "down_bias"))
    ]
    d = weights["0/qkv_bias"].shape[2]
    return weights["0/qkv_bias"].is_cuda and all(name in products for name in biases) and d in (16, 32, 64, 128)


def encode(model: PackedModel, inputs: Tensors, longest: int) -> torch.Tensor:
    """Return the last hidden state [tokens, hidden] of packed tokens.

    Args:
        inputs: ids, segments, positions [tokens] and starts [batch + 1], int32.
        longest: number of tokens of the longest sequence, or more.
    """
    weights, norm, product = model.weights, model.norm, model.product
    gelu = tail_gelu if model.products else functional.gelu
    x = weights["word"][inputs["ids"]] + weights["type"][inputs["segments"]] + weights["position"][inputs["positions"]]
    x = norm(x, "embeddings")
    if "projection_bias" in weights:
        x = product(x, "projection")
    layers = sum(name.endswith("/qkv_bias") for name in weights)
    if model.fused:
        from backends.torch_.packed_fp8 import fused_layers

        return fused_layers(model, x, layers, inputs["starts"], longest)
    for layer in range(layers):
        qkv = product(x, f"{layer}/qkv").reshape(len(x), *weights[f"{layer}/qkv_bias"].shape)
        query, key, value = qkv.unbind(1)
        context = attend(query, key, value, inputs["starts"], longest).flatten(1)
        x = norm(x + product(context, f"{layer}/output"), f"{layer}/attention")
        x = norm(x + product(gelu(product(x, f"{layer}/up")), f"{layer}/down"), f"{layer}/output")
    return x


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, longest: int
) -> torch.Tensor:
    """Compute attention within each sequence; all tensors are [tokens, heads, d].

    The values of tokens after the last sequence are undefined. A CPU has no kernel for it, so the sequences are
    computed one after another.
    """
    if query.is_cuda:
        # The operator under torch.nn.attention.varlen.varlen_attn, which also fills a tensor that is not used here.
        attended: torch.Tensor = torch.ops.aten._flash_attention_forward(
            query, key, value, starts, starts, longest, longest, 0.0, False, False
        )[0]
        return attended
    attended = torch.zeros_like(query)
    for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        q, k, v = (tensor[begin:end].transpose(0, 1)[None] for tensor in (query, key, value))
        attended[begin:end] = functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
    return attended


def compiled(model: PackedModel, spec: BuildSpec) -> Callable[[Tensors, int], torch.Tensor]:
    """Return `model.run`, compiled if the options of `spec` say so. On a CPU it is never compiled.

    FP8 is compiled by default, for any number of tokens: that number differs between almost all batches of real texts.
    """
    options = spec.options_as(PackedOptions)
    automatic = options.packed_mode is PackedMode.auto
    mode = options.packed_mode
    if automatic:
        mode = PackedMode.default if spec.precision == "fp8" else PackedMode.eager
    if mode is PackedMode.eager or spec.device.kind == "cpu":
        return model.run
    torch._dynamo.config.recompile_limit = max(64, 2 * len(spec.shapes))
    dynamic = {Switch.auto: None, Switch.on: True, Switch.off: automatic}[options.dynamic]
    run: Callable[[Tensors, int], torch.Tensor] = torch.compile(
        model.run, mode=CompileMode[mode.name].value, dynamic=dynamic
    )
    return run
