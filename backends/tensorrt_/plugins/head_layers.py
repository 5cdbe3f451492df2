"""The layers after the encoder, in a network of plugins: pooling on the device, then the layers of a head.

Layers read hidden states as [tokens, E] of packed tokens, or [sequence, batch, E] of padded sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Unsupported
from backends.model.heads import LINEAR, NORM, NORMALIZE, Head, Layer
from backends.onnx_.gelu import GELU_VARIANTS
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.pointwise import Pointwise

if TYPE_CHECKING:
    import tensorrt as trt

SMALLEST_LENGTH = 1e-3
"""Smallest divisor of a vector that is scaled to length 1. FP16 can represent it."""

MASKED = 60000.0
"""Subtracted from the values of padding before their maximum. FP16 can represent it."""


@dataclass(frozen=True)
class HeadLayers:
    """Layers of a head, added to the network of `layers`.

    Attributes:
        places: start of each sequence [batch + 1] of packed tokens, or mask [sequence, batch] of padded sequences.
        packed: which of the two `places` is.
        ids: ids of the tokens, whose size is the number of packed tokens.
        width: hidden size E.
        most_tokens: largest number of packed tokens, or the longest of the padded sequences.
        rounded: whether tokens that belong to no sequence may follow packed tokens.
    """

    layers: BasicLayers
    head: Head
    places: trt.ITensor
    packed: bool
    ids: trt.ITensor
    width: int
    most_tokens: int
    rounded: bool = False

    @property
    def network(self) -> trt.INetworkDefinition:
        return self.layers.network

    def output(self, hidden: trt.ITensor) -> trt.ITensor:
        """Return the output [batch, ...], or [tokens, ...] or [sequence, batch, ...] of a head that reads each token.

        Args:
            hidden: floating-point hidden states, [tokens, E, 1, 1] or [sequence, batch, E, 1, 1].
        """
        values = self.layers.reshape(hidden, (0, self.width) if self.packed else (0, 0, self.width)).get_output(0)
        if self.head.pooling:
            values = (self._pooled_packed if self.packed else self._pooled_padded)(values)
        rank = 2 if self.packed or self.head.pooling else 3
        for layer in self.head.layers:
            values = self._layer(layer, values, rank)
        return values

    def _pooled_padded(self, hidden: trt.ITensor) -> trt.ITensor:
        """Return the poolings of each sequence [batch, poolings x E] from [sequence, batch, E]."""
        pooled = [self._pool_padded(mode, hidden) for mode in self.head.pooling]
        return pooled[0] if len(pooled) == 1 else self._joined(pooled, 1)

    def _joined(self, tensors: list[trt.ITensor], axis: int) -> trt.ITensor:
        joined = self.network.add_concatenation(tensors)
        joined.axis = axis
        return joined.get_output(0)

    def _pooled_packed(self, hidden: trt.ITensor) -> trt.ITensor:
        """Return the poolings of each sequence [batch, poolings x E] from [tokens, E].

        Several poolings are one product with the weights of all of them: TensorRT 8.6.0 gave wrong values for two
        products of the same hidden states, concatenated.
        """
        modes = self.head.pooling
        if "max" in modes:
            raise Unsupported("packed tokens have no max pooling in TensorRT; use layout=fixed, or pooling=mean or cls")
        if not set(modes) - {"cls", "lasttoken"}:
            begin, end = self._bounds
            last = self._binary(end, self._integers(np.ones(1, np.int32)), "SUB")
            places = [begin if mode == "cls" else last for mode in modes]
            rows = [self.network.add_gather(hidden, place, 0).get_output(0) for place in places]
            return rows[0] if len(rows) == 1 else self._joined(rows, 1)
        if self.rounded:
            hidden = self._without_other_tokens(hidden)
        weights = [self._packed_weights(mode) for mode in modes]
        none = self.layers.api.trt.MatrixOperation.NONE
        stacked = weights[0] if len(modes) == 1 else self._joined(weights, 0)
        product = self.network.add_matrix_multiply(stacked, none, hidden, none).get_output(0)
        if len(modes) == 1:
            return product
        split = self.layers.reshape(product, (len(modes), -1, self.width))
        split.second_transpose = (1, 0, 2)
        return self.layers.reshape(split.get_output(0), (0, len(modes) * self.width)).get_output(0)

    @cached_property
    def _bounds(self) -> tuple[trt.ITensor, trt.ITensor]:
        """Index of the first token of each sequence, and of the token after its last one, both [batch]."""
        sizes = self.network.add_shape(self.places).get_output(0)
        kind = np.int64 if self.layers.api.can.int64_sizes else np.int32
        count = self._binary(sizes, self._integers(np.ones(1, kind)), "SUB")
        bounds = []
        for start in (0, 1):
            cut = self.network.add_slice(self.places, (start,), (0,), (1,))
            cut.set_input(2, count)
            bounds.append(cut.get_output(0))
        return bounds[0], bounds[1]

    @cached_property
    def _members(self) -> trt.ITensor:
        """1 where a token (column) belongs to a sequence (row), else 0: floating point [batch, tokens]."""
        begin, end = self._bound_columns
        before_end = self._binary(self._token_numbers, end, "LESS")
        after_begin = self._binary(self._plus_one(self._token_numbers), begin, "GREATER")
        return self._floating(self._binary(before_end, after_begin, "AND"))

    @property
    def _bound_columns(self) -> tuple[trt.ITensor, trt.ITensor]:
        """The bounds as [batch, 1]."""
        begin, end = (self.layers.reshape(bound, (-1, 1)).get_output(0) for bound in self._bounds)
        return begin, end

    def _plus_one(self, values: trt.ITensor) -> trt.ITensor:
        return self._binary(values, self._integers(np.ones((1, 1), np.int32)), "SUM")

    @cached_property
    def _token_numbers(self) -> trt.ITensor:
        """0, 1, 2, ... for each packed token, int32 [1, tokens]."""
        tokens = self.network.add_shape(self.ids).get_output(0)
        return self.layers.reshape(self._numbers(0, tokens), (1, -1)).get_output(0)

    @cached_property
    def _positions(self) -> trt.ITensor:
        """1, 2, 3, ... for each position of padded sequences, floating point [sequence, 1]."""
        sizes = self.network.add_shape(self.places).get_output(0)
        sequence = self.network.add_slice(sizes, (0,), (1,), (1,)).get_output(0)
        return self._floating(self.layers.reshape(self._numbers(1, sequence), (-1, 1)).get_output(0))

    def _numbers(self, first: int, count: trt.ITensor) -> trt.ITensor:
        """Return `first`, `first` + 1, ... int32 [count]. `count` is an integer tensor [1], at most `most_tokens`."""
        table = self._integers(np.arange(first, first + self.most_tokens, dtype=np.int32))
        cut = self.network.add_slice(table, (0,), (0,), (1,))
        cut.set_input(2, count)
        return cut.get_output(0)

    def _packed_weights(self, mode: str) -> trt.ITensor:
        """Return the weight of each token in each sequence, floating point [batch, tokens]."""
        begin, end = self._bound_columns
        if mode == "cls":
            return self._floating(self._binary(self._token_numbers, begin, "EQUAL"))
        if mode == "lasttoken":
            return self._floating(self._binary(self._plus_one(self._token_numbers), end, "EQUAL"))
        weights, divisor = self._members, self._floating(self._binary(end, begin, "SUB"))
        if mode == "mean_sqrt_len_tokens":
            divisor = self._unary(divisor, "SQRT")
        if mode == "weightedmean":
            position = self._plus_one(self._binary(self._token_numbers, begin, "SUB"))
            weights = self._binary(weights, self._floating(position), "PROD")
            divisor = self._reduced(weights, "SUM", 1)
        return self._binary(weights, divisor, "DIV")

    def _without_other_tokens(self, hidden: trt.ITensor) -> trt.ITensor:
        """Replace the values of tokens that belong to no sequence, which are undefined, by 0."""
        inside = self._reduced(self._members, "SUM", 0)
        valid = self._binary(inside, self.layers.constant(np.full((1, 1), 0.5, np.float32)), "GREATER")
        column = self.layers.reshape(valid, (-1, 1)).get_output(0)
        return self.network.add_select(column, hidden, self._zero).get_output(0)

    def _pool_padded(self, mode: str, hidden: trt.ITensor) -> trt.ITensor:
        """Return one vector for each sequence [batch, E] from [sequence, batch, E]."""
        if mode == "cls":
            return self.network.add_gather(hidden, self._integers(np.array(0, np.int32)), 0).get_output(0)
        mask = self._floating(self.places)
        if mode == "max":
            one, most = (self.layers.constant(np.full((1, 1), value, np.float32)) for value in (1.0, MASKED))
            offset = self._binary(self._binary(mask, one, "SUB"), most, "PROD")
            return self._reduced(self._binary(hidden, self._column(offset), "SUM"), "MAX", 0, keep=False)
        count = self._reduced(mask, "SUM", 0)
        if mode == "lasttoken":
            # The last token is the only one whose position, from 1, is not below the number of tokens.
            half = self.layers.constant(np.full((1, 1), 0.5, np.float32))
            inside = self._binary(self._binary(self._positions, count, "SUB"), half, "SUM")
            weights = self._binary(mask, self._floating(self._binary(inside, self._zero, "GREATER")), "PROD")
        elif mode == "weightedmean":
            weighted = self._binary(mask, self._positions, "PROD")
            weights = self._binary(weighted, self._reduced(weighted, "SUM", 0), "DIV")
        else:
            divisor = self._unary(count, "SQRT") if mode == "mean_sqrt_len_tokens" else count
            weights = self._binary(mask, divisor, "DIV")
        return self._reduced(self._binary(hidden, self._column(weights), "PROD"), "SUM", 0, keep=False)

    @property
    def _zero(self) -> trt.ITensor:
        return self.layers.constant(np.zeros((1, 1), np.float32))

    def _column(self, values: trt.ITensor) -> trt.ITensor:
        """Return [sequence, batch] as [sequence, batch, 1]."""
        return self.layers.reshape(values, (0, 0, 1)).get_output(0)

    def _layer(self, step: Layer, values: trt.ITensor, rank: int) -> trt.ITensor:
        """Apply a layer of the head to [..., features] with `rank` axes."""
        trt, leading = self.layers.api.trt, (1,) * (rank - 1)
        if step.kind == LINEAR:
            assert step.weight is not None
            weight = self.layers.constant(step.weight.reshape(*leading[1:], *step.weight.shape))
            none, transposed = trt.MatrixOperation.NONE, trt.MatrixOperation.TRANSPOSE
            product = self.network.add_matrix_multiply(values, none, weight, transposed).get_output(0)
            return product if step.bias is None else self._binary(product, self._row(step.bias, leading), "SUM")
        if step.kind == NORM:
            assert step.weight is not None
            bias = np.zeros_like(step.weight) if step.bias is None else step.bias
            scale, shift = (self._row(array, leading) for array in (step.weight, bias))
            norm = self.network.add_normalization(values, scale, shift, 1 << (rank - 1))
            norm.epsilon = self.head.epsilon
            return norm.get_output(0)
        if step.kind == NORMALIZE:
            length = self._unary(self._reduced(self._binary(values, values, "PROD"), "SUM", rank - 1), "SQRT")
            smallest = self._row(np.array([SMALLEST_LENGTH], np.float32), leading)
            return self._binary(values, self._binary(length, smallest, "MAX"), "DIV")
        if step.kind == "gelu":
            return GELU_VARIANTS["erf"](values, Pointwise(self.layers))
        activation = getattr(trt.ActivationType, step.kind.upper())
        return self.network.add_activation(values, activation).get_output(0)

    def _row(self, array: Array, leading: tuple[int, ...]) -> trt.ITensor:
        return self.layers.constant(array.reshape(*leading, -1))

    def _binary(self, first: trt.ITensor, second: trt.ITensor, operation: str) -> trt.ITensor:
        chosen = getattr(self.layers.api.trt.ElementWiseOperation, operation)
        return self.network.add_elementwise(first, second, chosen).get_output(0)

    def _unary(self, values: trt.ITensor, operation: str) -> trt.ITensor:
        chosen = getattr(self.layers.api.trt.UnaryOperation, operation)
        return self.network.add_unary(values, chosen).get_output(0)

    def _reduced(self, values: trt.ITensor, operation: str, axis: int, keep: bool = True) -> trt.ITensor:
        chosen = getattr(self.layers.api.trt.ReduceOperation, operation)
        return self.network.add_reduce(values, chosen, 1 << axis, keep).get_output(0)

    def _integers(self, array: Array) -> trt.ITensor:
        return self.network.add_constant(array.shape, self.layers.api.trt.Weights(array)).get_output(0)

    def _floating(self, values: trt.ITensor) -> trt.ITensor:
        """Convert integers or Booleans to the floating-point type of the network."""
        trt = self.layers.api.trt
        strong = self.layers.half and not self.layers.api.can.weak_typing
        return self.network.add_cast(values, trt.DataType.HALF if strong else trt.DataType.FLOAT).get_output(0)
