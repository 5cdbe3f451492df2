"""Elementwise arithmetic in layers of a network; see backends/gelu.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorrt as trt

from backends.base import Array


class Pointwise:
    """Adds layers to `network`, which TensorRT fuses; `constant` makes a tensor of an array, of the network's type."""

    def __init__(self, network: trt.INetworkDefinition, constant: Callable[[Array], trt.ITensor]) -> None:
        self._network, self._constant = network, constant

    def add(self, one: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(one, other, trt.ElementWiseOperation.SUM)

    def multiply(self, one: trt.ITensor, other: trt.ITensor | float) -> trt.ITensor:
        return self._elementwise(one, other, trt.ElementWiseOperation.PROD)

    def erf(self, one: trt.ITensor) -> trt.ITensor:
        return self._network.add_unary(one, trt.UnaryOperation.ERF).get_output(0)

    def sigmoid(self, one: trt.ITensor) -> trt.ITensor:
        return self._network.add_activation(one, trt.ActivationType.SIGMOID).get_output(0)

    def tanh(self, one: trt.ITensor) -> trt.ITensor:
        return self._network.add_activation(one, trt.ActivationType.TANH).get_output(0)

    def clip(self, one: trt.ITensor, edge: float) -> trt.ITensor:
        activation = self._network.add_activation(one, trt.ActivationType.CLIP)
        activation.alpha, activation.beta = -edge, edge
        return activation.get_output(0)

    def _elementwise(self, one: trt.ITensor, other: trt.ITensor | float, how: trt.ElementWiseOperation) -> trt.ITensor:
        if isinstance(other, float):
            other = self._constant(np.full((1,) * len(one.shape), other, np.float32))
        return self._network.add_elementwise(one, other, how).get_output(0)
