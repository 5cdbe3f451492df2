"""Elementwise arithmetic in layers of a network; see backends/gelu.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorrt as trt

from backends.base import Array
from backends.tensorrt_.capabilities import installed

can = installed()


class Pointwise:
    """Adds layers to `network`, which TensorRT fuses; `typed` makes an array of the network's type.

    Where layers have precisions they ask for FP32, constants included: with FP16 allowed TensorRT may otherwise compute
    between them in FP16, and it fuses GELU into a product only so (add_gelu in demo/BERT of NVIDIA/TensorRT).
    """

    def __init__(self, network: trt.INetworkDefinition, typed: Callable[[Array], Array]) -> None:
        self._network, self._typed = network, typed

    def add(self, one: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(one, other, trt.ElementWiseOperation.SUM)

    def multiply(self, one: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(one, other, trt.ElementWiseOperation.PROD)

    def power(self, one: trt.ITensor, exponent: float) -> trt.ITensor:
        return self._elementwise(one, exponent, trt.ElementWiseOperation.POW)

    def erf(self, one: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_unary(one, trt.UnaryOperation.ERF))

    def sigmoid(self, one: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(one, trt.ActivationType.SIGMOID))

    def tanh(self, one: trt.ITensor) -> trt.ITensor:
        return self._exact(self._network.add_activation(one, trt.ActivationType.TANH))

    def clip(self, one: trt.ITensor, edge: float) -> trt.ITensor:
        activation = self._network.add_activation(one, trt.ActivationType.CLIP)
        activation.alpha, activation.beta = -edge, edge
        return self._exact(activation)

    def _elementwise(self, one: trt.ITensor, other: trt.ITensor | float, how: trt.ElementWiseOperation) -> trt.ITensor:
        if isinstance(other, float):
            number = self._typed(np.full((1,) * len(one.shape), other, np.float32))
            other = self._exact(self._network.add_constant(number.shape, trt.Weights(number)))
        return self._exact(self._network.add_elementwise(one, other, how))

    def _exact(self, layer: trt.ILayer) -> trt.ITensor:
        if can.weak_typing:
            layer.precision = trt.DataType.FLOAT
        return layer.get_output(0)
