"""Encoder of plugins and plain layers, built from its weights with the network API.

Tensors between layers are [tokens, E, 1, 1] for packed tokens, [1, E, tokens, 1] for packed and interleaved tokens, and
[sequence, batch, E, 1, 1] for padded sequences.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from backends.base import Array
from backends.model.heads import Head
from backends.onnx_.gelu_shift import bias_correction, centred_range
from backends.tensorrt_.plugins import plugin_creators
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.gelu_layers import add_gelu
from backends.tensorrt_.plugins.head_layers import HeadLayers
from backends.tensorrt_.plugins.plain_layers import PlainLayers
from backends.tensorrt_.plugins.plugin_choices import Choices, scale_max
from backends.tensorrt_.plugins.plugin_creators import FieldValue, Plugin, add_plugin
from backends.tensorrt_.plugins.pointwise import Pointwise
from backends.tensorrt_.plugins.products import Products
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass
class PluginNetwork:
    """Encoder, added to `network`.

    Attributes:
        arrays: weights by the names of backends/model/weights.py. Heads are padded; without plugins queries are
            divided.
        notes: number of "layers" and "heads", and size "hidden" of attention (heads x head size).
        ranges: largest absolute activation by point, see backends/onnx_/ranges.py; empty without INT8.
        excluded: computations that are excluded from INT8, "<layer>/<entry of backends/onnx_/ranges.py's COMPUTED>".
        marked: points whose tensors are concatenated to the output. If empty, the output is the last hidden state.
        epsilon: epsilon of the norms that are not plugins.
        head: layers after the encoder; None for hidden states.
        most_tokens, rounded: see HeadLayers.
    """

    api: TensorRTApi
    network: trt.INetworkDefinition
    choices: Choices
    arrays: Mapping[str, Array]
    notes: Mapping[str, int]
    ranges: Mapping[str, float]
    excluded: Collection[str] = ()
    marked: Sequence[str] = ()
    epsilon: float = 1e-12
    head: Head | None = None
    most_tokens: int = 0
    rounded: bool = False
    _marked_tensors: dict[str, trt.ITensor] = field(default_factory=dict)
    _inputs: dict[str, trt.ITensor] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        """Whether TensorRT's own layers replace the plugins, which needs its packed attention."""
        can = self.api.can
        return can.packed_attention and self.choices.packed

    @cached_property
    def layers(self) -> BasicLayers:
        return BasicLayers(self.api, self.network, self.choices.half)

    @cached_property
    def plain(self) -> PlainLayers:
        return PlainLayers(self.layers, self.epsilon)

    @cached_property
    def products(self) -> Products:
        return Products(self.layers, self.choices, bool(self.ranges), self.excluded)

    def define(self) -> None:
        """Add inputs, embeddings, layers and output."""
        hidden, mask = self._embeddings()
        self._set_range(hidden, "embeddings")
        for index in range(self.notes["layers"]):
            attended = self._attention(hidden, mask, index)
            hidden = self._norm(attended, hidden, index, "attention")
            down = self._feed_forward(hidden, index)
            hidden = self._norm(down, hidden, index, "output")
        self._output(hidden)

    def _input(self, name: str) -> trt.ITensor:
        # INT8 attention over padded sequences requires a sequence length that is fixed at build time.
        trt = self.api.trt
        sizes = (-1,) if self.choices.packed else (self.choices.sequence, -1)
        self._inputs[name] = self.network.add_input(name, trt.int32, sizes)
        return self._inputs[name]

    def _embeddings(self) -> tuple[trt.ITensor, list[trt.ITensor]]:
        """Return the embeddings after their norm, and the further inputs of attention."""
        packed = self.choices.packed
        names = ("input_ids", "segment_ids", *(("cu_seqlens", "max_seqlen") if packed else ("input_mask",)))
        inputs = [self._input(name) for name in names]
        if self.native or self.choices.plain_embeddings:
            ids, segments, starts, longest = inputs
            unread = longest if self.native else None
            hidden = self.plain.embeddings(self.arrays, ids, segments, self._input("positions"), unread)
            # The packed attention plugin has an input for a mask but does not read it: any tensor will do.
            return self._projected(hidden), [starts, starts, longest]
        fields: dict[str, FieldValue] = {
            "bert_embeddings_layernorm_beta": self.arrays["embeddings_beta"],
            "bert_embeddings_layernorm_gamma": self.arrays["embeddings_gamma"],
            "bert_embeddings_word_embeddings": self.arrays["word"],
            "bert_embeddings_token_type_embeddings": self.arrays["type"],
            "bert_embeddings_position_embeddings": self.arrays["position"],
            "output_fp16": int(self.choices.half),
        }
        kind = self._attention_type()
        fields |= {} if packed else {"mha_type_id": kind}
        layer = add_plugin(
            self.layers, Plugin(plugin_creators.EMBEDDINGS, 2 if packed else 1, fields), inputs, "embeddings"
        )
        hidden = self._projected(layer.get_output(0))
        if self.choices.interleaved:
            return self.layers.transpose(hidden), inputs[2:]
        return hidden, [layer.get_output(1), *(inputs[2:] if packed else [])]

    def _projected(self, hidden: trt.ITensor) -> trt.ITensor:
        if "projection_weight" not in self.arrays:
            return hidden
        weight, bias = self.arrays["projection_weight"], self.arrays["projection_bias"]
        return self.products.linear(hidden, weight, bias, "projection").get_output(0)

    def _attention(self, hidden: trt.ITensor, mask: list[trt.ITensor], index: int) -> trt.ITensor:
        """Return the output of a layer's attention, from the QKV projection to the output projection."""
        weight, bias = (self.arrays[f"{index}/qkv_{kind}"] for kind in ("weight", "bias"))
        if not self.choices.interleaved and not self.native:
            # These kernels read query, key and value of each head together. The others read all queries first.
            weight, bias = weight.swapaxes(0, 1), bias.swapaxes(0, 1)
        kind = self._attention_type(f"{index}/attention" in self.excluded)
        layer = self.products.linear(hidden, weight.reshape(-1, weight.shape[-1]), bias.reshape(-1), f"{index}/qkv")
        qkv = self._product_output(kind, layer, f"{index}/qkv")
        if self.native:
            context = self.plain.attention(qkv, mask[0], self.notes["heads"], self.notes["hidden"])
        else:
            context = self._context(qkv, mask, kind, index)
        self._set_range(context, f"{index}/context")
        weight, bias = (self.arrays[f"{index}/output_{kind}"] for kind in ("weight", "bias"))
        layer = self.products.linear(context, weight.reshape(len(weight), -1), bias, f"{index}/attended")
        return self._product_output(self._norm_type(), layer, f"{index}/attended")

    def _context(self, qkv: trt.ITensor, mask: list[trt.ITensor], kind: int, index: int) -> trt.ITensor:
        """Return the output of the attention plugin."""
        fields: dict[str, FieldValue] = {
            "hidden_size": self.notes["hidden"],
            "num_heads": self.notes["heads"],
            # Step size of the rounded softmax probabilities. For long texts all of them can be far below 1.
            "dq_probs": self.ranges.get(f"{index}/probs", 1.0) / 127,
        }
        if not self.choices.interleaved:
            fields |= {"type_id": kind, "has_mask": 1}
            fields |= {"var_seqlen": 1} if self.choices.packed else {}
        if self.choices.packed and kind == plugin_creators.INT8:
            on = scale_max(self.choices.scale_max, self.ranges[f"{index}/qkv"])
            fields["use_int8_scale_max"] = int(on)
        plugin = Plugin(plugin_creators.ATTENTION, self.choices.version, fields)
        layer = add_plugin(self.layers, plugin, [qkv, *mask], f"{index}/attention")
        return layer.get_output(0)

    def _attention_type(self, excluded: bool = False) -> int:
        if self.choices.int8_attention and not excluded:
            return plugin_creators.INT8
        return plugin_creators.FP16 if self.choices.half else plugin_creators.FP32

    def _norm(self, tensor: trt.ITensor, skip: trt.ITensor, index: int, name: str) -> trt.ITensor:
        """Return the norm of `tensor` + `skip`."""
        last = self._is_last(index, name)
        kind = self._norm_type(last)
        gamma, beta = self.arrays[f"{index}/{name}_gamma"], self.arrays[f"{index}/{name}_beta"]
        if self.native:
            normed = self.plain.skip_norm(tensor, skip, gamma, beta)
            self._mark(normed, f"{index}/{name}")
            return normed
        fields: dict[str, FieldValue] = {"beta": beta, "gamma": gamma}
        fields |= {} if self.choices.interleaved else {"type_id": kind}
        fields |= {} if self.choices.packed else {"ld": len(gamma)}
        plugin = Plugin(plugin_creators.SKIP_NORM, self.choices.version, fields)
        layer = add_plugin(self.layers, plugin, [tensor, skip], f"{index}/{name}_norm")
        if last and kind != plugin_creators.INT8:
            self._mark(layer.get_output(0), f"{index}/{name}")
        else:
            self._set_range(layer.get_output(0), f"{index}/{name}")
        return layer.get_output(0)

    def _is_last(self, index: int, name: str) -> bool:
        return name == "output" and index == self.notes["layers"] - 1

    def _norm_type(self, last: bool = False) -> int:
        """Return the type of the residual additions with their norms.

        No product reads the last one, so it is INT8 only if all tensors are.
        """
        if self.choices.int8_norms and (self.choices.interleaved or not last):
            return plugin_creators.INT8
        return plugin_creators.FP16 if self.choices.half else plugin_creators.FP32

    def _feed_forward(self, hidden: trt.ITensor, index: int) -> trt.ITensor:
        weight, bias = self.arrays[f"{index}/up_weight"], self.arrays[f"{index}/up_bias"]
        up = self.products.linear(hidden, weight, bias, f"{index}/up").get_output(0)
        # This tensor gets no range: with a range TensorRT would also round to INT8 before GELU.
        self._mark(up, f"{index}/up")
        gelu = add_gelu(self.layers, self.choices, up, f"{index}/gelu")
        weight, bias = self.arrays[f"{index}/down_weight"], self.arrays[f"{index}/down_bias"]
        if self.choices.shift and f"{index}/down" not in self.excluded:
            self._mark(gelu, f"{index}/gelu")
            offset, limit = centred_range(self.ranges[f"{index}/gelu"])
            gelu = Pointwise(self.layers).add(gelu, -offset)
            gelu.set_dynamic_range(-limit, limit)
            bias = bias + bias_correction(offset, weight.T)
        else:
            self._set_range(gelu, f"{index}/gelu")
        layer = self.products.linear(gelu, weight, bias, f"{index}/down")
        return self._product_output(self._norm_type(self._is_last(index, "output")), layer, f"{index}/down")

    def _product_output(self, kind: int, layer: trt.ILayer, point: str) -> trt.ITensor:
        """Return the output of a product that a plugin of type `kind` reads.

        It gets a range only if that type is INT8, so that it is rounded once.
        """
        trt, can = self.api.trt, self.api.can
        if kind == plugin_creators.INT8:
            self._set_range(layer.get_output(0), point)
        else:
            if can.weak_typing and self.ranges:
                layer.set_output_type(0, trt.DataType.HALF)
            self._mark(layer.get_output(0), point)
        return layer.get_output(0)

    def _set_range(self, tensor: trt.ITensor, point: str) -> None:
        """Set the range of a tensor, and keep the tensor if its point is marked."""
        can = self.api.can
        if self.ranges and can.weak_typing:
            tensor.set_dynamic_range(-self.ranges[point], self.ranges[point])
        self._mark(tensor, point)

    def _mark(self, tensor: trt.ITensor, point: str) -> None:
        if point in self.marked:
            self._marked_tensors[point] = tensor

    def _output(self, hidden: trt.ITensor) -> None:
        """Mark the output: that of the head, the last hidden state, or the marked tensors concatenated.

        The output is floating point, also if the tensors are INT8.
        """
        trt, can = self.api.trt, self.api.can
        tensors = [self._marked_tensors[point] for point in self.marked] or [hidden]
        outputs = [self._floating(tensor) for tensor in tensors]
        result = outputs[0]
        if len(outputs) > 1:
            joined = self.network.add_concatenation(outputs)
            joined.axis = 1 if self.choices.packed else 2
            result = joined.get_output(0)
        if self.head is not None:
            result = self._head_layers(self.head).output(result)
        result.name = "last_hidden_state" if self.head is None else "output"
        self.network.mark_output(result)
        if can.weak_typing and self.choices.half and (self.head is None or not self.head.pooling):
            result.dtype = trt.DataType.HALF

    def _head_layers(self, head: Head) -> HeadLayers:
        packed = self.choices.packed
        return HeadLayers(
            self.layers,
            head,
            self._inputs["cu_seqlens" if packed else "input_mask"],
            packed,
            self._inputs["input_ids"],
            width=len(self.arrays["0/output_gamma"]),
            most_tokens=self.most_tokens if packed else self.choices.positions,
            rounded=self.rounded,
        )

    def _floating(self, tensor: trt.ITensor) -> trt.ITensor:
        trt, can = self.api.trt, self.api.can
        identity = self.network.add_identity(self.layers.transpose(tensor) if self.choices.interleaved else tensor)
        if can.weak_typing and self.choices.half:
            identity.set_output_type(0, trt.DataType.HALF)
        return identity.get_output(0)
