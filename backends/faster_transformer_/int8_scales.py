"""INT8 of FasterTransformer: ranges of an encoder, and the list of scales that the operator `INT8Bert` takes.

The list of a layer has, for the hidden size E:

    for each entry of PLACES the range a, then a / 127, a / 127 / 127 and 127 / a; eight zeros
    9 E ranges of weights, one for each output channel of the six products
    eight factors from the INT32 sum of a product to its INT8 output
    three ranges for fused attention kernels, and 21 zeros

The first range of a product's weights is the one that mode 2 uses, which has one scale for each weight.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from backends.base import Array, Feeds
from backends.faster_transformer_.formulas import embed, encode
from backends.faster_transformer_.operator_weights import PRODUCTS
from backends.inputs.packing import segments, token_lengths

PLACES = (
    "input", "query_product", "query", "key_product", "key", "value_product", "value", "scores", "probs", "context",
    "output_product", "attention", "up_product", "gelu", "down_product", "next_input",
)  # fmt: skip
"""Values of a layer with a range, in the order of the list. A product is its value before the bias; scores are the
products of queries and keys before their division; next_input is the input of the next layer."""

FACTORS = (
    ("input", "query_weight", "query_product"),
    ("input", "key_weight", "key_product"),
    ("input", "value_weight", "value_product"),
    ("query", "key", "scores"),
    ("probs", "value", "context"),
    ("context", "output_weight", "output_product"),
    ("attention", "up_weight", "up_product"),
    ("gelu", "down_weight", "down_product"),
)
"""The two factors and the result of each product, in the order of the list."""

RESERVED, RESERVED_AT_END = 8, 21

SMALLEST = 1e-6
"""Smallest range: a range of zero has no scale."""

Ranges = list[dict[str, float]]
"""Range of each value of a layer by its name, for each layer."""


def calibrate(
    arrays: Mapping[str, Array], weights: Mapping[str, Array], sizes: Mapping[str, float], batches: Iterator[Feeds]
) -> Ranges:
    """Return the largest absolute values over calibration inputs. Padding is not counted.

    Args:
        arrays: weights of the encoder, see backends/model/weights.py.
        weights: the same in the layout of the operator, see `operator_weights`.
        sizes: heads and epsilon.
    """
    largest: list[dict[str, float]] = [defaultdict(lambda: SMALLEST) for _ in weights["query_kernel"]]

    def observe(layer: int, name: str, value: Array) -> None:
        largest[layer][name] = max(largest[layer][name], float(np.abs(value).max()))

    for feeds in batches:
        types = segments(feeds)
        for row, length in enumerate(token_lengths(feeds["attention_mask"])):
            x = embed(arrays, feeds["input_ids"][row, :length], types[row, :length], sizes["epsilon"])
            encode(weights, int(sizes["heads"]), x, observe)
    return [dict(ranges) for ranges in largest]


def weight_ranges(kernel: Array, mode: int) -> Array:
    """Return the range of each output channel of a kernel [inputs, outputs]; mode 2 has one range for all of them."""
    ranges: Array = np.abs(kernel).max(0).clip(SMALLEST)
    return ranges if mode == 1 else np.full_like(ranges, ranges.max())


def scale_list(ranges: Ranges, weights: Mapping[str, Array], mode: int) -> Array:
    """Return the list of scales, FP32 [layers, values].

    Args:
        ranges: of `calibrate`.
        weights: kernels in the layout of the operator, see `operator_weights`.
    """
    lists = []
    for layer, own in enumerate(ranges):
        # The last layer has no next one; its output is not rounded.
        after = ranges[layer + 1]["input"] if layer + 1 < len(ranges) else 1.0
        channels = {name: weight_ranges(weights[f"{name}_kernel"][layer], mode) for name in PRODUCTS}
        known = {**own, "next_input": after, **{f"{name}_weight": float(a[0]) for name, a in channels.items()}}
        activations = [value for name in PLACES for value in _scales(known[name])]
        factors = [known[a] * known[b] / (127 * known[product]) for a, b, product in FACTORS]
        fused = [max(own["query"], own["key"], own["value"]), own["probs"], own["context"]]
        parts = (activations, [0.0] * RESERVED, *channels.values(), factors, fused, [0.0] * RESERVED_AT_END)
        lists.append(np.concatenate([np.asarray(part, np.float32) for part in parts]))
    return np.stack(lists)


def _scales(largest: float) -> tuple[float, ...]:
    return largest, largest / 127, largest / 127 / 127, 127 / largest
