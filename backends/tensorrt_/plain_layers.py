"""What the plugins compute, by TensorRT's own layers: where a plugin ends at some length, or a release has none.

`attention` is that of 11.x (IAttention with packed tensors, as the schema of its ONNX operator TRT_Attention describes
it). No release that has it has been run here: that its names are there is all that is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorrt as trt

from backends.base import Array, Unsupported
from backends.tensorrt_.capabilities import installed

can = installed()


@dataclass(frozen=True)
class PlainLayers:
    """Adds layers to `network`; `constant` makes a tensor of an array, of the network's type."""

    network: trt.INetworkDefinition
    constant: Callable[[Array], trt.ITensor]
    epsilon: float

    def embeddings(
        self, arrays: Mapping[str, Array], ids: trt.ITensor, segments: trt.ITensor, positions: trt.ITensor,
        longest: trt.ITensor | None = None,
    ) -> trt.ITensor:  # fmt: skip
        """The sum of three tables' rows and its norm, [tokens, e, 1, 1].

        Args:
            longest: as long as the longest sequence; it cuts the table of positions, so that the engine keeps it among
                its inputs where nothing else reads it.
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
        return self._reshaped(self._norm(total, gamma, beta), (0, arrays["word"].shape[1], 1, 1))

    def skip_norm(self, tensor: trt.ITensor, skip: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        """The norm of `tensor` + `skip`, all [tokens, E, 1, 1]."""
        total = self.network.add_elementwise(tensor, skip, trt.ElementWiseOperation.SUM).get_output(0)
        return self._norm(total, gamma.reshape(1, -1, 1, 1), beta.reshape(1, -1, 1, 1))

    def attention(self, qkv: trt.ITensor, starts: trt.ITensor, heads: int, hidden: int) -> trt.ITensor:
        """The context [tokens, hidden, 1, 1] of all queries, all keys and all values, [tokens, 3 x hidden, 1, 1]; it
        divides the scores by nothing, so queries come divided. `starts` as in layout.Packed.

        Raises:
            Unsupported: the release has no packed attention.
        """
        if not can.packed_attention:
            raise Unsupported(f"TensorRT {trt.__version__} has no packed attention of its own; use layout=fixed")
        parts = self._reshaped(qkv, (0, 3, heads, hidden // heads))
        query, key, value = (self.network.add_gather(parts, self._number(part), 1).get_output(0) for part in range(3))
        softmax, mask = trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE
        attention = self.network.add_attention_v2(query, key, value, softmax, mask)
        attention.query_form = trt.AttentionIOForm.PACKED_NHD
        attention.key_value_form = trt.AttentionIOForm.PACKED_NHD
        attention.query_lengths = starts
        # NVIDIA/TensorRT-Edge-LLM has seen TensorRT crash where both are one tensor.
        attention.key_value_lengths = self.network.add_identity(starts).get_output(0)
        attention.decomposable = True
        return self._reshaped(attention.get_output(0), (0, hidden, 1, 1))

    def _norm(self, tensor: trt.ITensor, gamma: Array, beta: Array) -> trt.ITensor:
        norm = self.network.add_normalization(tensor, self.constant(gamma), self.constant(beta), 1 << 1)
        norm.epsilon = self.epsilon
        return norm.get_output(0)

    def _first(self, table: trt.ITensor, longest: trt.ITensor, width: int) -> trt.ITensor:
        """As many rows of `table` as `longest` is long."""
        length = self.network.add_shape(longest).get_output(0)
        wide = self.network.add_constant((1,), trt.Weights(np.array([width], np.int64))).get_output(0)
        sizes = self.network.add_concatenation([length, wide]).get_output(0)
        cut = self.network.add_slice(table, (0, 0), (0, 0), (1, 1))
        cut.set_input(2, sizes)
        return cut.get_output(0)

    def _number(self, value: int) -> trt.ITensor:
        return self.network.add_constant((), trt.Weights(np.array(value, np.int32))).get_output(0)

    def _reshaped(self, tensor: trt.ITensor, sizes: tuple[int, ...]) -> trt.ITensor:
        """A 0 in `sizes` keeps that size."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.reshape_dims = sizes
        return shuffle.get_output(0)
