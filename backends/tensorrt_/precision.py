"""Precisions of a network: by builder flags where a release has them, by the graph's own types where it has not."""

from __future__ import annotations

import tensorrt as trt

from backends.base import BuildSpec
from backends.tensorrt_.capabilities import installed
from backends.typed import matching

can = installed()


def set_precision(spec: BuildSpec, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> int:
    """Set the flags of `spec.precision`, and hold the layers that `keep_fp32` names; returns how many are held.

    With weak typing INT8 and FP8 come with FP16, for all that is not quantized.
    """
    if spec.precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if not can.weak_typing or spec.options["strongly_typed"] == "on":
        return 0
    if spec.precision in ("fp16", "int8", "fp8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if spec.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if can.opset_19:
        if spec.precision == "fp8":
            config.set_flag(trt.BuilderFlag.FP8)
        if spec.precision == "bf16":
            config.set_flag(trt.BuilderFlag.BF16)
    return hold_in_fp32(network, config, spec.options["keep_fp32"])


def hold_in_fp32(network: trt.INetworkDefinition, config: trt.IBuilderConfig, patterns: list[str]) -> int:
    """Hold the layers whose name, which is their ONNX node's, matches a pattern; returns how many.

    Raises:
        ValueError: a pattern matches none.
    """
    layers = {network.get_layer(index).name: network.get_layer(index) for index in range(network.num_layers)}
    held = matching(list(layers), patterns)
    if can.weak_typing and held:
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        for name in held:
            layer = layers[name]
            # Shape computations have no FP32 form.
            outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
            if any(output.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF) for output in outputs):
                continue
            layer.precision = trt.DataType.FLOAT
            for index in range(layer.num_outputs):
                layer.set_output_type(index, trt.DataType.FLOAT)
    return len(held)
