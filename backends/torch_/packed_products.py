"""Names of the matrix products of the packed encoder, and the linear layers of transformers that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backends.model.layer_names import LayerNames, node_of
from backends.onnx_.onnx_casts import matching_names

ROLES = {
    "qkv": ("query", "key", "value"),
    "output": ("attention_output",),
    "up": ("ffn_up",),
    "down": ("ffn_down",),
}
"""Roles (attributes of LayerNames) of the layers of each product. A product is named "<layer>/<key>", or "projection"
for that of the embeddings."""


def packed_layers(names: LayerNames, layers: int) -> dict[str, list[str]]:
    """Return the paths of the linear layers of each product. A model without projection has none at its path."""
    products = {
        f"{layer}/{product}": [names.module(role, layer) for role in roles]
        for layer in range(layers)
        for product, roles in ROLES.items()
    }
    return {"projection": [names.projection], **products}


def packed_ranges(ranges: Mapping[str, float], names: LayerNames, layers: int) -> dict[str, float]:
    """Return the largest input of each product from those of linear layers (backends/onnx_/linear_ranges.py)."""
    return {product: ranges[paths[0]] for product, paths in packed_layers(names, layers).items() if paths[0] in ranges}


def packed_products_left_out(names: LayerNames, layers: int, patterns: Sequence[str]) -> set[str]:
    """Return the products with a layer that `patterns` (quantization.leave_out) name.

    Raises:
        ValueError: a pattern matches no layer.
    """
    nodes = {
        f"/{node_of(path, 'MatMul')}": product
        for product, paths in packed_layers(names, layers).items()
        for path in paths
    }
    return {nodes[node] for node in matching_names(list(nodes), patterns)}
