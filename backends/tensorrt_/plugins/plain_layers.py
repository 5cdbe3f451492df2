"""TensorRT's own layers in place of plugins, for sequences longer than a plugin supports and releases without plugins.

`attention` uses IAttention of 11.x with packed tensors, as the schema of the ONNX operator TRT_Attention describes it.
It has never been run: the tests only check that the release has the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorrt as trt

from backends.base import Array, Unsupported
from backends.tensorrt_.runtime.capabilities import installed

can = installed()


@dataclass(frozen=True)
class PlainLayers:
    """Plain layers, added to `network`. `constant` converts an array to a tensor of the network's type."""

    network: trt.INetworkDefinition
    constant: Callable[[Array], trt.ITensor]
    epsilon: float

    def embeddings(
        self, arrays: Mapping[str, Array], ids: trt.ITensor, segments: trt.ITensor, positions: trt.ITensor,
        longest: trt.ITensor | None = None,
    ) -> trt.ITensor:  # fmt: skip
        """Return the normalized sum of word, type and position embeddings, [tokens, e, 1, 1].

        Args:
            longest: tensor with as many elements as the longest sequence has tokens. It cuts the table of positions.
                The engine thus keeps the tensor as an input if no other layer reads it.
        """
        total = None
        for name, index in (("word", ids), ("type", segments), ("position", positions)):
            table = self.constant(arrays[name])
            if name == "position" and longest is not None:
                table = self._first(table, longest, arrays[name].shape[1])
            rows = self.network.add_gather(table, index, 0).get_output(0)
            add = trt.ElementWiseOperation.SUM
            total = rows if total is None else self.network.add_elementwise(total, rows, add).get_output(0)
        gamma, beta = (arrays[f"embeddings_{name}"][None] for name in ("gamma", "beta"))
        return self._reshape(self._norm(total, gamma, beta), (0, arrays["word"].shape[1], 1, 1))

    def skip_norm(self, tensor: trt.ITensor, skip: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        """Return the norm of `tensor` + `skip`, all [tokens, E, 1, 1]."""
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
        if not can.packed_attention:
            raise Unsupported(f"TensorRT {trt.__version__} has no packed attention of its own; use layout=fixed")
        parts = self._reshape(qkv, (0, 3, heads, hidden // heads))
        query, key, value = (self.network.add_gather(parts, self._number(part), 1).get_output(0) for part in range(3))
        softmax, mask = trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
        attention = self.network.add_attention_v2(query, key, value, softmax, mask)
        attention.query_form = trt.AttentionIOForm.PACKED_NHD
        attention.key_value_form = trt.AttentionIOForm.PACKED_NHD
        attention.query_lengths = starts
        # NVIDIA/TensorRT-Edge-LLM reports a crash of TensorRT if both lengths are the same tensor.
        attention.key_value_lengths = self.network.add_identity(starts).get_output(0)
        attention.decomposable = True
        return self._reshape(attention.get_output(0), (0, hidden, 1, 1))

    def _norm(self, tensor: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        norm = self.network.add_normalization(tensor, self.constant(gamma), self.constant(beta), 1 << 1)
        norm.epsilon = self.epsilon
        return norm.get_output(0)

    def _first(self, table: trt.ITensor, longest: trt.ITensor, width: int) -> trt.ITensor:
        """Return the first rows of `table`, as many as `longest` has elements."""
        length = self.network.add_shape(longest).get_output(0)
        wide = self.network.add_constant((1,), trt.Weights(np.array([width], np.int64))).get_output(0)
        sizes = self.network.add_concatenation([length, wide]).get_output(0)
        cut = self.network.add_slice(table, (0, 0), (0, 0), (1, 1))
        cut.set_input(2, sizes)
        return cut.get_output(0)

    def _number(self, value: int) -> trt.ITensor:
        return self.network.add_constant((), trt.Weights(np.array(value, np.int32))).get_output(0)

    def _reshape(self, tensor: trt.ITensor, sizes: tuple[int, ...]) -> trt.ITensor:
        """Reshape `tensor`. A 0 in `sizes` keeps that size."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.reshape_dims = sizes
        return shuffle.get_output(0)
