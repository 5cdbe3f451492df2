"""GELU between the two products of the feed-forward block, as layers of a network of plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.onnx_.gelu import GELU_VARIANTS
from backends.tensorrt_.plugins.basic_layers import BasicLayers
from backends.tensorrt_.plugins.plugin_choices import Choices
from backends.tensorrt_.plugins.plugin_creators import FP16, FP32, GELU, Plugin, add_plugin
from backends.tensorrt_.plugins.pointwise import Pointwise

if TYPE_CHECKING:
    import tensorrt as trt


def add_gelu(layers: BasicLayers, choices: Choices, tensor: trt.ITensor, name: str) -> trt.ITensor:
    """Add GELU of `tensor`, in the variant of `choices`, and return its output, which has the same sizes.

    Args:
        name: name of the layer if it is a plugin.

    Raises:
        Unsupported: the release has no plugin for GELU.
    """
    if choices.gelu == "plugin":
        kind = FP16 if choices.half else FP32
        return add_plugin(layers, Plugin(GELU, 1, {"type_id": kind}), [tensor], name).get_output(0)
    formula, arithmetic = GELU_VARIANTS[choices.gelu], Pointwise(layers)
    if not choices.flat_gelu:
        return formula(tensor, arithmetic)
    kept = (0,) if choices.packed else (0, 0)
    features = tensor.shape[len(kept)]
    flat = layers.reshape(tensor, (*kept, features)).get_output(0)
    return layers.reshape(formula(flat, arithmetic), (*kept, features, 1, 1)).get_output(0)
