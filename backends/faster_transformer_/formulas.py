"""The encoder as FasterTransformer computes it, in numpy: calibration of INT8, and tests of the layout of weights.

It differs from BERT in two points: GELU is its approximation with tanh, and the epsilon of layer normalization is 1e-6.
Both are constants of the library. The embeddings are computed outside of it, as the model has them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from backends.base import Array

EPSILON = 1e-6
"""Epsilon of layer normalization in the library."""

Observe = Callable[[int, str, Array], None]
"""Function that gets the layer, the name of a value and its array."""


def embed(arrays: Mapping[str, Array], ids: Array, segments: Array, epsilon: float) -> Array:
    """Return the input of the encoder for one sequence, FP32 [tokens, hidden].

    Args:
        arrays: weights by name, see backends/model/weights.py.
        ids, segments: token ids and token types [tokens].
        epsilon: epsilon of the norm of the embeddings.
    """
    x = arrays["word"][ids] + arrays["position"][: len(ids)] + arrays["type"][segments]
    x = norm(x, arrays["embeddings_gamma"], arrays["embeddings_beta"], epsilon)
    if "projection_weight" in arrays:
        x = x @ arrays["projection_weight"].T + arrays["projection_bias"]
    return x


def encode(weights: Mapping[str, Array], heads: int, x: Array, observe: Observe) -> Array:
    """Return the last hidden state of one sequence without padding, FP32 [tokens, hidden].

    Args:
        weights: see backends/faster_transformer_/operator_weights.py.
        x: input of the encoder [tokens, hidden].
        observe: gets each value that INT8 rounds, by its name in PLACES of int8_scales.py.
    """
    for layer in range(len(weights["query_kernel"])):
        own = {name: stacked[layer] for name, stacked in weights.items()}
        observe(layer, "input", x)
        context = _attend(own, heads, x, partial(observe, layer))
        observe(layer, "context", context)
        product = context @ own["output_kernel"]
        observe(layer, "output_product", product)
        x = norm(x + product + own["output_bias"], own["attention_gamma"], own["attention_beta"], EPSILON)
        observe(layer, "attention", x)
        product = x @ own["up_kernel"]
        observe(layer, "up_product", product)
        inner = gelu(product + own["up_bias"])
        observe(layer, "gelu", inner)
        product = inner @ own["down_kernel"]
        observe(layer, "down_product", product)
        x = norm(x + product + own["down_bias"], own["norm_gamma"], own["norm_beta"], EPSILON)
    return x


def _attend(own: Mapping[str, Array], heads: int, x: Array, observe: Callable[[str, Array], None]) -> Array:
    """Return the context of one layer [tokens, hidden]."""
    parts = []
    for name in ("query", "key", "value"):
        product = x @ own[f"{name}_kernel"]
        observe(f"{name}_product", product)
        part = product + own[f"{name}_bias"]
        observe(name, part)
        parts.append(part.reshape(len(x), heads, -1).swapaxes(0, 1))
    query, key, value = parts
    scores = query @ key.swapaxes(1, 2)
    observe("scores", scores)
    scores = scores / np.float32(math.sqrt(query.shape[-1]))
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    probs = exponentials / exponentials.sum(-1, keepdims=True)
    observe("probs", probs)
    return np.asarray((probs @ value).swapaxes(0, 1).reshape(len(x), -1))


def gelu(x: Array) -> Array:
    """Return GELU by the approximation with tanh of Hendrycks and Gimpel, Gaussian Error Linear Units, 2016."""
    return np.asarray(0.5 * x * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + 0.044715 * x**3))))


def norm(x: Array, gamma: Array, beta: Array, epsilon: float) -> Array:
    """Return the layer normalization of [..., features]."""
    centred = x - x.mean(-1, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(epsilon)) * gamma + beta)
