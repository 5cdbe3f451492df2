"""TensorRT's own layers in place of plugins, for sequences longer than a plugin supports and releases without plugins.

`attention` uses IAttention of 11.x with packed tensors, as the schema of the ONNX operator TRT_Attention describes it.
It has never been run: the tests only check that the release has the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unsupported
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class PlainLayers:
    """Plain layers, added to the network of `layers`. `epsilon` is that of norms."""

    layers: BasicLayers
    epsilon: float

    @property
    def api(self) -> TensorRTApi:
        return self.layers.api

    @property
    def network(self) -> trt.INetworkDefinition:
        return self.layers.network

    def embeddings(
        self, arrays: Mapping[str, Array], ids: trt.ITensor, segments: trt.ITensor, positions: trt.ITensor,
        longest: trt.ITensor | None = None,
    ) -> trt.ITensor:  # fmt: skip
        """Return the normalized sum of word, type and position embeddings, [tokens, e, 1, 1].

        Args:
            longest: tensor with as many elements as the longest sequence has tokens. It cuts the table of positions.
                The engine thus keeps the tensor as an input if no other layer reads it.
        """
        trt, total = self.api.trt, None
        for name, index in (("word", ids), ("type", segments), ("position", positions)):
            table = self.layers.constant(arrays[name])
            if name == "position" and longest is not None:
                table = self._first(table, longest, arrays[name].shape[1])
            rows = self.network.add_gather(table, index, 0).get_output(0)
            add = trt.ElementWiseOperation.SUM
            total = rows if total is None else self.network.add_elementwise(total, rows, add).get_output(0)
        gamma, beta = (arrays[f"embeddings_{name}"][None] for name in ("gamma", "beta"))
        return self.layers.reshape(self._norm(total, gamma, beta), (0, arrays["word"].shape[1], 1, 1)).get_output(0)

    def skip_norm(self, tensor: trt.ITensor, skip: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        """Return the norm of `tensor` + `skip`, all [tokens, E, 1, 1]."""
        trt = self.api.trt
        total = self.network.add_elementwise(tensor, skip, trt.ElementWiseOperation.SUM).get_output(0)
        return self._norm(total, gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1))

    def attention(self, qkv: trt.ITensor, starts: trt.ITensor, heads: int, hidden: int) -> trt.ITensor:
        """Return the attention context [tokens, hidden, 1, 1].

        Args:
            qkv: all queries, then all keys, then all values, [tokens, 3 x hidden, 1, 1]. The scores are not scaled, so
                the queries must be divided by sqrt(head size) before (backends/model/weights.py's `divide_queries`).
            starts: start of each sequence [batch + 1], as in layout.Packed.

        Raises:
            Unsupported: the release has no packed attention.
        """
        trt, can = self.api.trt, self.api.can
        if not can.packed_attention:
            raise Unsupported(f"TensorRT {self.api.version} has no packed attention of its own; use layout=fixed")
        split = self.layers.reshape(qkv, (0, 3, heads, hidden // heads)).get_output(0)
        query, key, value = (self.network.add_gather(split, self._number(index), 1).get_output(0) for index in range(3))
        softmax, mask = trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
        attention = self.network.add_attention_v2(query, key, value, softmax, mask)
        attention.query_form = trt.AttentionIOForm.PACKED_NHD
        attention.key_value_form = trt.AttentionIOForm.PACKED_NHD
        attention.query_lengths = starts
        # NVIDIA/TensorRT-Edge-LLM reports a crash of TensorRT if both lengths are the same tensor.
        attention.key_value_lengths = self.network.add_identity(starts).get_output(0)
        attention.decomposable = True
        return self.layers.reshape(attention.get_output(0), (0, hidden, 1, 1)).get_output(0)

    def _norm(self, tensor: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        norm = self.network.add_normalization(tensor, self.layers.constant(gamma), self.layers.constant(beta), 1 << 1)
        norm.epsilon = self.epsilon
        return norm.get_output(0)

    def _first(self, table: trt.ITensor, longest: trt.ITensor, width: int) -> trt.ITensor:
        """Return the first rows of `table`, as many as `longest` has elements."""
        trt = self.api.trt
        length = self.network.add_shape(longest).get_output(0)
        wide = self.network.add_constant((1,), trt.Weights(np.array([width], np.int64))).get_output(0)
        sizes = self.network.add_concatenation([length, wide]).get_output(0)
        cut = self.network.add_slice(table, (0, 0), (0, 0), (1, 1))
        cut.set_input(2, sizes)
        return cut.get_output(0)

    def _number(self, value: int) -> trt.ITensor:
        trt = self.api.trt
        return self.network.add_constant((), trt.Weights(np.array(value, np.int32))).get_output(0)
