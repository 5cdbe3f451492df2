"""Weights of an encoder in the layout of FasterTransformer's operators `Bert` and `INT8Bert`.

Both take sixteen tensors. Each stacks the layers of an encoder, because the library finds the weights of a layer by its
offset. Kernels are [layers, inputs, outputs], the transpose of PyTorch's weights. With the sizes of
backends/model/weights.py, where N * d equals E:

    query, key, value     _kernel [layers, E, N * d]   _bias [layers, N * d]
    output                _kernel [layers, N * d, E]   _bias [layers, E]   the product after attention
    attention             _gamma, _beta [layers, E]
    up                    _kernel [layers, E, I]       _bias [layers, I]
    down                  _kernel [layers, I, E]       _bias [layers, E]
    norm                  _gamma, _beta [layers, E]                        the norm at the end of a layer
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.base import Array

PRODUCTS = ("query", "key", "value", "output", "up", "down")
"""Products with weights, in the order of the operators and of the list of scales of INT8."""

ARGUMENTS = (
    "query_kernel", "query_bias", "key_kernel", "key_bias", "value_kernel", "value_bias", "output_kernel",
    "output_bias", "attention_gamma", "attention_beta", "up_kernel", "up_bias", "down_kernel", "down_bias",
    "norm_gamma", "norm_beta",
)  # fmt: skip
"""The first sixteen arguments of the operators, in order."""


def operator_weights(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays of ARGUMENTS by name, contiguous FP32, from those of backends/model/weights.py."""
    layers = sum(name.endswith("/qkv_weight") for name in arrays)
    by_layer = [_layer_weights(arrays, layer) for layer in range(layers)]
    return {name: np.stack([own[name] for own in by_layer]).astype(np.float32, "C") for name in ARGUMENTS}


def _layer_weights(arrays: Mapping[str, Array], layer: int) -> dict[str, Array]:
    own = {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{layer}/")}
    hidden = len(own["output_bias"])
    projections = zip(("query", "key", "value"), own["qkv_weight"], own["qkv_bias"], strict=True)
    weights = {
        name: array
        for part, weight, bias in projections
        for name, array in ((f"{part}_kernel", weight.reshape(-1, hidden).T), (f"{part}_bias", bias.reshape(-1)))
    }
    return {
        **weights,
        "output_kernel": own["output_weight"].reshape(hidden, -1).T,
        "output_bias": own["output_bias"],
        "attention_gamma": own["attention_gamma"],
        "attention_beta": own["attention_beta"],
        "up_kernel": own["up_weight"].T,
        "up_bias": own["up_bias"],
        "down_kernel": own["down_weight"].T,
        "down_bias": own["down_bias"],
        "norm_gamma": own["output_gamma"],
        "norm_beta": own["output_beta"],
    }
