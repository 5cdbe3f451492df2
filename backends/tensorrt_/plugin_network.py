"""An encoder of plugins and plain layers, built from its weights by the network API.

Between layers tensors are [tokens, E, 1, 1] where tokens are packed, [1, E, tokens, 1] where they are interleaved too,
and [sequence, batch, E, 1, 1] where they are neither.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorrt as trt

from backends.base import Array
from backends.gelu import FORMS
from backends.shift import centred, given_back
from backends.tensorrt_ import plugins
from backends.tensorrt_.capabilities import installed
from backends.tensorrt_.plugin_choices import Choices
from backends.tensorrt_.plugins import add_plugin
from backends.tensorrt_.pointwise import Pointwise

can = installed()


@dataclass
class PluginNetwork:
    """Adds an encoder to `network`.

    Attributes:
        arrays: weights under the names of backends/weights.py, heads padded.
        notes: layers, heads, hidden (of attention: heads x head size).
        ranges: largest absolute activation by point, see backends/ranges.py; empty without INT8.
        left: what INT8 leaves out, "<layer>/<one of backends/ranges.py's COMPUTED>".
        marked: points that are the output, side by side, instead of the last hidden state.
    """

    network: trt.INetworkDefinition
    choices: Choices
    arrays: Mapping[str, Array]
    notes: Mapping[str, int]
    ranges: Mapping[str, float]
    left: Collection[str] = ()
    marked: Sequence[str] = ()
    _seen: dict[str, trt.ITensor] = field(default_factory=dict)

    def define(self) -> None:
        """Inputs, embeddings, layers, output."""
        hidden, mask = self._embeddings()
        self._pass(hidden, "embeddings")
        for index in range(self.notes["layers"]):
            attended = self._attention(hidden, mask, index)
            hidden = self._norm(attended, hidden, index, "attention")
            down = self._feed_forward(hidden, index)
            hidden = self._norm(down, hidden, index, "output")
        self._output(hidden)

    def _input(self, name: str, rank: int) -> trt.ITensor:
        return self.network.add_input(name, trt.int32, (-1,) * rank)

    def _embeddings(self) -> tuple[trt.ITensor, list[trt.ITensor]]:
        """Embeddings after their norm, and what attention takes beside them."""
        packed = self.choices.packed
        names = ("input_ids", "segment_ids", *(("cu_seqlens", "max_seqlen") if packed else ("input_mask",)))
        inputs = [self._input(name, 1 if packed else 2) for name in names]
        fields = {
            "bert_embeddings_layernorm_beta": self.arrays["embeddings_beta"],
            "bert_embeddings_layernorm_gamma": self.arrays["embeddings_gamma"],
            "bert_embeddings_word_embeddings": self.arrays["word"],
            "bert_embeddings_token_type_embeddings": self.arrays["type"],
            "bert_embeddings_position_embeddings": self.arrays["position"],
            "output_fp16": int(self.choices.half),
        }
        kind = self._attention_type()
        fields |= {} if packed else {"mha_type_id": kind}
        layer = add_plugin(self.network, plugins.EMBEDDINGS, 2 if packed else 1, inputs, fields, "embeddings")
        hidden = layer.get_output(0)
        if self.choices.plain_embeddings:
            hidden = self._plain_embeddings(inputs[0], inputs[1], self._input("positions", 1))
        if "projection_weight" in self.arrays:
            hidden = self._linear(
                hidden, self.arrays["projection_weight"], self.arrays["projection_bias"], "projection"
            )
        if self.choices.interleaved:
            return self._transposed(hidden), inputs[2:]
        return hidden, [layer.get_output(1), *(inputs[2:] if packed else [])]

    def _plain_embeddings(self, ids: trt.ITensor, segments: trt.ITensor, positions: trt.ITensor) -> trt.ITensor:
        """What the packed embedding plugin computes, for any length, of gathers and a norm."""
        total = None
        for name, index in (("word", ids), ("type", segments), ("position", positions)):
            table = self._constant(self.arrays[name])
            rows = self.network.add_gather(table, index, 0).get_output(0)
            add = trt.ElementWiseOperation.SUM
            total = rows if total is None else self.network.add_elementwise(total, rows, add).get_output(0)
        gamma, beta = (self._constant(self.arrays[f"embeddings_{name}"][None]) for name in ("gamma", "beta"))
        norm = self.network.add_normalization(total, gamma, beta, 1 << 1)
        return self._reshaped(norm.get_output(0), (0, self.arrays["word"].shape[1], 1, 1))

    def _attention(self, hidden: trt.ITensor, mask: list[trt.ITensor], index: int) -> trt.ITensor:
        """Projections, attention and the output projection of a layer."""
        weight, bias = (self.arrays[f"{index}/qkv_{kind}"] for kind in ("weight", "bias"))
        if not self.choices.interleaved:
            # The kernels read query, key and value of a head beside one another; interleaved ones, all queries first.
            weight, bias = weight.swapaxes(0, 1), bias.swapaxes(0, 1)
        qkv = self._linear(hidden, weight.reshape(-1, weight.shape[-1]), bias.reshape(-1), f"{index}/qkv")
        self._pass(qkv, f"{index}/qkv")
        fields: dict[str, Any] = {
            "hidden_size": self.notes["hidden"],
            "num_heads": self.notes["heads"],
            # What one step of softmax's rounded probabilities is worth: over long texts they can all lie far below 1.
            "dq_probs": self.ranges.get(f"{index}/probs", 1.0) / 127,
        }
        if not self.choices.interleaved:
            fields |= {"type_id": self._attention_type(f"{index}/attention" in self.left), "has_mask": 1}
            fields |= {"var_seqlen": 1} if self.choices.packed else {}
        version = self.choices.version
        layer = add_plugin(self.network, plugins.ATTENTION, version, [qkv, *mask], fields, f"{index}/attention")
        context = layer.get_output(0)
        self._pass(context, f"{index}/context")
        output = self.arrays[f"{index}/output_weight"]
        attended = self._linear(
            context, output.reshape(len(output), -1), self.arrays[f"{index}/output_bias"], f"{index}/attended"
        )
        self._pass(attended, f"{index}/attended")
        return attended

    def _attention_type(self, left: bool = False) -> int:
        if self.choices.int8_attention and not left:
            return plugins.INT8
        return plugins.FP16 if self.choices.half else plugins.FP32

    def _norm(self, tensor: trt.ITensor, skip: trt.ITensor, index: int, name: str) -> trt.ITensor:
        """The norm of `tensor` + `skip`."""
        kind = plugins.INT8 if self.choices.int8_norms else plugins.FP16 if self.choices.half else plugins.FP32
        gamma, beta = self.arrays[f"{index}/{name}_gamma"], self.arrays[f"{index}/{name}_beta"]
        fields: dict[str, Any] = {"beta": beta, "gamma": gamma}
        fields |= {} if self.choices.interleaved else {"type_id": kind}
        fields |= {} if self.choices.packed else {"ld": len(gamma)}
        inputs, version = [tensor, skip], self.choices.version
        layer = add_plugin(self.network, plugins.SKIP_NORM, version, inputs, fields, f"{index}/{name}_norm")
        self._pass(layer.get_output(0), f"{index}/{name}")
        return layer.get_output(0)

    def _feed_forward(self, hidden: trt.ITensor, index: int) -> trt.ITensor:
        up = self._linear(hidden, self.arrays[f"{index}/up_weight"], self.arrays[f"{index}/up_bias"], f"{index}/up")
        self._pass(up, f"{index}/up")
        gelu, (weight, bias) = self._gelu(up), (self.arrays[f"{index}/down_{kind}"] for kind in ("weight", "bias"))
        if self.choices.shift and f"{index}/down" not in self.left:
            if f"{index}/gelu" in self.marked:
                self._seen[f"{index}/gelu"] = gelu
            offset, reach = centred(self.ranges[f"{index}/gelu"])
            by = self._constant(np.full((1,) * len(gelu.shape), offset, np.float32))
            gelu = self.network.add_elementwise(gelu, by, trt.ElementWiseOperation.SUB).get_output(0)
            gelu.set_dynamic_range(-reach, reach)
            bias = bias + given_back(offset, weight.T)
        else:
            self._pass(gelu, f"{index}/gelu")
        down = self._linear(gelu, weight, bias, f"{index}/down")
        self._pass(down, f"{index}/down")
        return down

    def _gelu(self, tensor: trt.ITensor) -> trt.ITensor:
        if self.choices.gelu == "plugin":
            fields = {"type_id": plugins.FP16 if self.choices.half else plugins.FP32}
            return add_plugin(self.network, plugins.GELU, 1, [tensor], fields, "gelu").get_output(0)
        return FORMS[self.choices.gelu](tensor, Pointwise(self.network, self._constant))

    def _linear(self, tensor: trt.ITensor, weight: Array, bias: Array, name: str) -> trt.ITensor:
        """`tensor` times `weight` [out, in] plus `bias`, by the product that was chosen."""
        out, into = weight.shape
        if self.choices.products == "convolution":
            kernel, offset = trt.Weights(self._typed(weight)), trt.Weights(self._typed(bias))
            layer = self.network.add_convolution_nd(tensor, out, (1, 1), kernel, offset)
            self._named(layer, name)
            return layer.get_output(0)
        lead = (0,) if self.choices.packed else (0, 0)
        ones = (1,) * len(lead)
        if self.choices.products == "plugin":
            kind = plugins.FP16 if self.choices.half else plugins.FP32
            fields = {"out_dims": out, "type_id": kind, "W": weight.T}
            product = add_plugin(self.network, plugins.LINEAR, 1, [tensor], fields, name).get_output(0)
            offset = self._constant(bias.reshape(*ones, out, 1, 1))
            return self.network.add_elementwise(product, offset, trt.ElementWiseOperation.SUM).get_output(0)
        flat = self._reshaped(tensor, (*lead, into))
        kernel = self._constant(np.ascontiguousarray(weight.T).reshape(*ones[1:], into, out))
        none = trt.MatrixOperation.NONE
        layer = self.network.add_matrix_multiply(flat, none, kernel, none)
        self._named(layer, name)
        offset = self._constant(bias.reshape(*ones, out))
        total = self.network.add_elementwise(layer.get_output(0), offset, trt.ElementWiseOperation.SUM).get_output(0)
        return self._reshaped(total, (*lead, out, 1, 1))

    def _named(self, layer: trt.ILayer, name: str) -> None:
        """Name a product, and keep it out of INT8 if it is left out."""
        layer.name = name
        if can.weak_typing and name in self.left:
            layer.precision = trt.DataType.HALF

    def _reshaped(self, tensor: trt.ITensor, sizes: tuple[int, ...]) -> trt.ITensor:
        """A 0 in `sizes` keeps that size."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.reshape_dims = sizes
        return shuffle.get_output(0)

    def _transposed(self, tensor: trt.ITensor) -> trt.ITensor:
        """[tokens, E, 1, 1] to [1, E, tokens, 1] and back."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.first_transpose = (2, 1, 0, 3)
        return shuffle.get_output(0)

    def _typed(self, array: Array) -> Array:
        """Where types come from the graph, weights carry them; elsewhere TensorRT rounds FP32 ones itself."""
        half = self.choices.half and not can.weak_typing
        return np.ascontiguousarray(array, np.float16 if half else np.float32)

    def _constant(self, array: Array) -> trt.ITensor:
        typed = self._typed(array)
        return self.network.add_constant(typed.shape, trt.Weights(typed)).get_output(0)

    def _pass(self, tensor: trt.ITensor, point: str) -> None:
        """Give a tensor its range, and remember it if it is to be an output."""
        if self.ranges and can.weak_typing:
            tensor.set_dynamic_range(-self.ranges[point], self.ranges[point])
        if point in self.marked:
            self._seen[point] = tensor

    def _output(self, hidden: trt.ITensor) -> None:
        """The last hidden state, or what is marked side by side, of a floating-point type: plugins may leave INT8."""
        real = [self._real(tensor) for tensor in ([self._seen[point] for point in self.marked] or [hidden])]
        result = real[0]
        if len(real) > 1:
            joined = self.network.add_concatenation(real)
            joined.axis = 1 if self.choices.packed else 2
            result = joined.get_output(0)
        result.name = "last_hidden_state"
        self.network.mark_output(result)
        if can.weak_typing and self.choices.half:
            result.dtype = trt.DataType.HALF

    def _real(self, tensor: trt.ITensor) -> trt.ITensor:
        identity = self.network.add_identity(self._transposed(tensor) if self.choices.interleaved else tensor)
        if can.weak_typing and self.choices.half:
            identity.set_output_type(0, trt.DataType.HALF)
        return identity.get_output(0)
