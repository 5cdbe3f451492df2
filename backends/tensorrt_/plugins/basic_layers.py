"""Layers that all parts of a network of plugins use: constants and changes of sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True)
class BasicLayers:
    """Layers, added to `network`.

    Attributes:
        half: whether the network computes in FP16, except for its INT8 tensors.
    """

    api: TensorRTApi
    network: trt.INetworkDefinition
    half: bool

    def typed(self, array: Array) -> Array:
        """Convert weights to FP16 where types come from the graph. Elsewhere TensorRT itself rounds FP32 weights."""
        half = self.half and not self.api.can.weak_typing
        return np.ascontiguousarray(array, np.float16 if half else np.float32)

    def constant(self, array: Array) -> trt.ITensor:
        """Add `array` as a tensor in the type of the network's weights."""
        trt, typed = self.api.trt, self.typed(array)
        return self.network.add_constant(typed.shape, trt.Weights(typed)).get_output(0)

    def reshape(self, tensor: trt.ITensor, sizes: tuple[int, ...]) -> trt.ILayer:
        """Reshape `tensor`. A 0 in `sizes` keeps that size."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.reshape_dims = sizes
        return shuffle

    def transpose(self, tensor: trt.ITensor) -> trt.ITensor:
        """Transpose [tokens, E, 1, 1] to [1, E, tokens, 1], or back."""
        shuffle = self.network.add_shuffle(tensor)
        shuffle.first_transpose = (2, 1, 0, 3)
        return shuffle.get_output(0)
