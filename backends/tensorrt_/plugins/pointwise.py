"""Elementwise arithmetic as layers of a network; see Arithmetic in backends/onnx_/gelu.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backends.tensorrt_.plugins.basic_layers import BasicLayers

if TYPE_CHECKING:
    import tensorrt as trt


class Pointwise:
    """Elementwise layers in the network of `layers`, which TensorRT fuses.

    In releases with precisions by layer, the layers and their constants request FP32. Otherwise TensorRT may compute
    between them in FP16 if it is allowed. TensorRT also fuses GELU into a product only with this request (add_gelu in
    demo/BERT of NVIDIA/TensorRT).
    """

    def __init__(self, layers: BasicLayers) -> None:
        self._layers, self._api, self._network = layers, layers.api, layers.network

    def add(self, tensor: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(tensor, other, self._api.trt.ElementWiseOperation.SUM)

    def multiply(self, tensor: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(tensor, other, self._api.trt.ElementWiseOperation.PROD)

    def divide(self, tensor: trt.ITensor, other: float) -> trt.ITensor:
        return self._elementwise(tensor, other, self._api.trt.ElementWiseOperation.DIV)

    def power(self, tensor: trt.ITensor, exponent: float) -> trt.ITensor:
        return self._elementwise(tensor, exponent, self._api.trt.ElementWiseOperation.POW)

    def erf(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_unary(tensor, self._api.trt.UnaryOperation.ERF))

    def sigmoid(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(tensor, self._api.trt.ActivationType.SIGMOID))

    def tanh(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(tensor, self._api.trt.ActivationType.TANH))

    def clip(self, tensor: trt.ITensor, edge: float) -> trt.ITensor:
        activation = self._network.add_activation(tensor, self._api.trt.ActivationType.CLIP)
        activation.alpha, activation.beta = -edge, edge
        return self._exact(activation)

    def _elementwise(
        self, tensor: trt.ITensor, other: trt.ITensor | float, operation: trt.ElementWiseOperation
    ) -> trt.ITensor:
        trt = self._api.trt
        if isinstance(other, float):
            number = self._layers.typed(np.full((1,) * len(tensor.shape), other, np.float32))
            other = self._exact(self._network.add_constant(number.shape, trt.Weights(number)))
        return self._exact(self._network.add_elementwise(tensor, other, operation))

    def _exact(self, layer: trt.ILayer) -> trt.ITensor:
        trt, can = self._api.trt, self._api.can
        if can.weak_typing:
            layer.precision = trt.DataType.FLOAT
        return layer.get_output(0)
