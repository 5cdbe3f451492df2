"""Elementwise arithmetic as layers of a network; see Arithmetic in backends/onnx_/gelu.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorrt as trt

from backends.base import Array
from backends.tensorrt_.runtime.capabilities import installed

can = installed()


class Pointwise:
    """Elementwise layers in `network`, which TensorRT fuses. `typed` converts an array to the network's type.

    In releases with precisions by layer, the layers and their constants request FP32. Otherwise TensorRT may compute
    between them in FP16 if it is allowed. TensorRT also fuses GELU into a product only with this request (add_gelu in
    demo/BERT of NVIDIA/TensorRT).
    """

    def __init__(self, network: trt.INetworkDefinition, typed: Callable[[Array], Array]) -> None:
        self._network, self._typed = network, typed

    def add(self, tensor: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(tensor, other, trt.ElementWiseOperation.SUM)

    def multiply(self, tensor: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(tensor, other, trt.ElementWiseOperation.PROD)

    def power(self, tensor: trt.ITensor, exponent: float) -> trt.ITensor:
        return self._elementwise(tensor, exponent, trt.ElementWiseOperation.POW)

    def erf(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_unary(tensor, trt.UnaryOperation.ERF))

    def sigmoid(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(tensor, trt.ActivationType.SIGMOID))

    def tanh(self, tensor: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(tensor, trt.ActivationType.TANH))

    def clip(self, tensor: trt.ITensor, edge: float) -> trt.ITensor:
        activation = self._network.add_activation(tensor, trt.ActivationType.CLIP)
        activation.alpha, activation.beta = -edge, edge
        return self._exact(activation)

    def _elementwise(
        self, tensor: trt.ITensor, other: trt.ITensor | float, operation: trt.ElementWiseOperation
    ) -> trt.ITensor:
        if isinstance(other, float):
            number = self._typed(np.full((1,) * len(tensor.shape), other, np.float32))
            other = self._exact(self._network.add_constant(number.shape, trt.Weights(number)))
        return self._exact(self._network.add_elementwise(tensor, other, operation))

    def _exact(self, layer: trt.ILayer) -> trt.ITensor:
        if can.weak_typing:
            layer.precision = trt.DataType.FLOAT
        return layer.get_output(0)
