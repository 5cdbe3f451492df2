"""Matrix products with a bias, as the kind of layer that the choices name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.plugin_choices import Choices
from backends.tensorrt_.plugins.plugin_creators import FP16, FP32, LINEAR, FieldValue, Plugin, add_plugin

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class Products:
    """Products of tensors [..., in, 1, 1] with weights.

    Attributes:
        quantized: whether tensors have ranges, so that products can be INT8.
        excluded: names of the products that are excluded from INT8.
    """

    layers: BasicLayers
    choices: Choices
    quantized: bool
    excluded: Collection[str]

    def linear(self, tensor: trt.ITensor, weight: Array, bias: Array, name: str) -> trt.ILayer:
        """Add `tensor` times `weight` [out, in] plus `bias`, with the chosen product, and return the last layer."""
        if self.choices.products in ("convolution", "fully_connected"):
            return self._with_bias_inside(tensor, weight, bias, name)
        if self.choices.products == "plugin":
            return self._plugin(tensor, weight, bias, name)
        return self._matrix_multiply(tensor, weight, bias, name)

    def _with_bias_inside(self, tensor: trt.ITensor, weight: Array, bias: Array, name: str) -> trt.ILayer:
        trt, can, network = self.layers.api.trt, self.layers.api.can, self.layers.network
        kernel, offset = trt.Weights(self.layers.typed(weight)), trt.Weights(self.layers.typed(bias))
        if can.fully_connected and self.choices.products == "fully_connected":
            layer = network.add_fully_connected(tensor, len(weight), kernel, offset)
        else:
            layer = network.add_convolution_nd(tensor, len(weight), (1, 1), kernel, offset)
        self._set_name_and_precision(layer, name)
        return layer

    def _plugin(self, tensor: trt.ITensor, weight: Array, bias: Array, name: str) -> trt.ILayer:
        trt = self.layers.api.trt
        kind = FP16 if self.choices.half else FP32
        fields: dict[str, FieldValue] = {"out_dims": len(weight), "type_id": kind, "W": weight.T}
        product = add_plugin(self.layers, Plugin(LINEAR, 1, fields), [tensor], name).get_output(0)
        offset = self.layers.constant(bias.reshape(*self._ones, -1, 1, 1))
        return self.layers.network.add_elementwise(product, offset, trt.ElementWiseOperation.SUM)

    def _matrix_multiply(self, tensor: trt.ITensor, weight: Array, bias: Array, name: str) -> trt.ILayer:
        trt, network = self.layers.api.trt, self.layers.network
        out, into = weight.shape
        lead = (0,) * len(self._ones)
        flat = self.layers.reshape(tensor, (*lead, into)).get_output(0)
        kernel = self.layers.constant(np.ascontiguousarray(weight.T).reshape(*self._ones[1:], into, out))
        none = trt.MatrixOperation.NONE
        layer = network.add_matrix_multiply(flat, none, kernel, none)
        self._set_name_and_precision(layer, name)
        offset = self.layers.constant(bias.reshape(*self._ones, out))
        total = network.add_elementwise(layer.get_output(0), offset, trt.ElementWiseOperation.SUM).get_output(0)
        return self.layers.reshape(total, (*lead, out, 1, 1))

    @property
    def _ones(self) -> tuple[int, ...]:
        """Sizes of a bias in the axes before the hidden size: tokens, or sequence and batch."""
        return (1,) if self.choices.packed else (1, 1)

    def _set_name_and_precision(self, layer: trt.ILayer, name: str) -> None:
        """Name a product layer, and set its precision if TensorRT must not choose it."""
        trt, can = self.layers.api.trt, self.layers.api.can
        layer.name = name
        # The bias corrects the shift for weights rounded to INT8. With other weights the correction would be wrong.
        shifted = self.choices.shift and name.endswith("/down")
        if not can.weak_typing:
            return
        if name in self.excluded:
            layer.precision = trt.DataType.HALF
        elif self.choices.half and (shifted or self.choices.obey):
            # The input of the embedding projection has no range.
            layer.precision = trt.DataType.INT8 if self.quantized and name != "projection" else trt.DataType.HALF
