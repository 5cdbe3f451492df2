"""Names of the operations of an encoder, from the paths of its modules.

The exporter names a node after the module that runs it and after the operation: the module encoder.layer.0.output.dense
runs the nodes /encoder/layer.0/output/dense/MatMul and /encoder/layer.0/output/dense/Add. A second operation of the
same kind in one module gets the suffix _1. So a family describes only its modules, and this file derives all nodes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

WEIGHT_PRODUCTS = ("query", "key", "value", "attention_output", "ffn_up", "ffn_down")
"""The six weight products of an encoder layer."""

NODES = (*WEIGHT_PRODUCTS, "scores", "context", "attention_residual", "ffn_residual")
"""All nodes that can be quantized: the weight products, attention's two products of activations, and the additions.

The addition of a block has two inputs. The residual input is also read by the block's products and is quantized with
them. The other input, the output of the block, is quantized only if the addition is.
"""

POINTS = (
    "embeddings", "query", "key", "value", "probs", "context", "attended", "attention", "up", "gelu", "down", "output",
)  # fmt: skip
"""Points at which ranges are collected. `embeddings` exists once, the other points exist in each layer."""

PROJECTION = "projection"
"""Output of the embeddings' projection, in a family that has one. The layers read it instead of the norm before it."""

MERGED_PRODUCT = "qkv"
"""Module name of the product into which backends/onnx_/surgery.py merges query, key and value."""


@dataclass(frozen=True)
class LayerNames:
    """Paths of the modules of an encoder, by their role. The defaults are the names of BERT.

    Attributes:
        layers: the list of layers. Paths from `query` to `ffn_norm` are relative to a layer.
        query, key, value, attention_output, ffn_up, ffn_down: the linear modules. The module that contains `query` also
            computes attention.
        attention_norm, ffn_norm: the norms after attention and after the feed-forward block. The module that contains
            the norm also adds the residual.
        activation: GELU.
        word, position, token_type, task_type: the embedding tables. A family need not have the last two.
        embeddings_norm, projection: the norm of the embeddings, and the linear module after it, if there is one.
    """

    layers: str = "encoder.layer"
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    ffn_up: str = "intermediate.dense"
    activation: str = "intermediate.intermediate_act_fn"
    ffn_down: str = "output.dense"
    ffn_norm: str = "output.LayerNorm"
    word: str = "embeddings.word_embeddings"
    position: str = "embeddings.position_embeddings"
    token_type: str = "embeddings.token_type_embeddings"
    task_type: str = "embeddings.task_type_embeddings"
    embeddings_norm: str = "embeddings.LayerNorm"
    projection: str = "embeddings_project"

    def module(self, role: str, layer: int) -> str:
        """Return the path of the module with `role` (the name of an attribute) in a layer."""
        return f"{self.layers}.{layer}.{getattr(self, role)}"

    @cached_property
    def nodes(self) -> Mapping[str, str]:
        """Node of each name in NODES, relative to a layer: "attention/self/query/MatMul" for "query"."""
        attention, attention_block, ffn_block = map(_parent, (self.query, self.attention_norm, self.ffn_norm))
        return {
            **{product: node_of(getattr(self, product), "MatMul") for product in WEIGHT_PRODUCTS},
            "scores": node_of(attention, "MatMul"),
            "context": node_of(attention, "MatMul_1"),
            "attention_residual": node_of(attention_block, "Add"),
            "ffn_residual": node_of(ffn_block, "Add_1" if ffn_block == attention_block else "Add"),
        }

    @cached_property
    def points(self) -> Mapping[str, str]:
        """Node of each point that exists in every layer, relative to the layer."""
        return {
            "query": node_of(self.query, "Add"),
            "key": node_of(self.key, "Add"),
            "value": node_of(self.value, "Add"),
            "probs": node_of(_parent(self.query), "Softmax"),
            "context": node_of(_parent(self.query), "MatMul_1"),
            "attended": node_of(self.attention_output, "Add"),
            "attention": node_of(self.attention_norm, "LayerNormalization"),
            "up": node_of(self.ffn_up, "Add"),
            "gelu": node_of(self.activation, "Mul_1"),
            "down": node_of(self.ffn_down, "Add"),
            "output": node_of(self.ffn_norm, "LayerNormalization"),
        }

    def node_at(self, name: str) -> tuple[int, str] | None:
        """Return the layer and the name in NODES of a node of the graph, or None. A merged product counts as query."""
        layer, node = self._in_layer(name)
        if node == node_of(f"{_parent(self.query)}.{MERGED_PRODUCT}", "MatMul"):
            return layer, "query"
        return next(((layer, kind) for kind, own_node in self.nodes.items() if own_node == node), None)

    def point_at(self, name: str) -> str:
        """Return the point of a node: "embeddings", PROJECTION or "<layer>/<point>"; empty if it has none."""
        layer, node = self._in_layer(name)
        if layer >= 0:
            return next((f"{layer}/{point}" for point, own_node in self.points.items() if own_node == node), "")
        once = {
            "embeddings": node_of(self.embeddings_norm, "LayerNormalization"),
            PROJECTION: node_of(self.projection, "Add"),
        }
        return next((point for point, own_node in once.items() if f"/{name}".endswith(f"/{own_node}")), "")

    def _in_layer(self, name: str) -> tuple[int, str]:
        """Return the number of the layer, and the part of the name below it; -1 and "" for a node outside of layers."""
        match = re.search(rf"(?:^|/){re.escape(node_path(self.layers))}\.(\d+)/(.+)$", name)
        return (int(match.group(1)), match.group(2)) if match else (-1, "")


def node_path(module: str) -> str:
    """Return the path of a module in node names: encoder/layer.0/output for encoder.layer.0.output."""
    return re.sub(r"\.(?!\d)", "/", module)


def node_of(module: str, operation: str) -> str:
    """Return the node name of an operation of `module`, a path with dots. An empty path is the layer itself."""
    return f"{node_path(module)}/{operation}" if module else operation


def _parent(module: str) -> str:
    return module.rpartition(".")[0]
