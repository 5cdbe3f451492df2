"""Precisions of a network: by builder flags where a release has them, by the graph's own types where it has not."""

from __future__ import annotations

import tensorrt as trt

from backends.base import BuildSpec
from backends.tensorrt_.capabilities import installed
from backends.typed import matching

can = installed()


def set_flags(spec: BuildSpec, config: trt.IBuilderConfig) -> None:
    """Set the builder flags of `spec.precision`, where a release has them.

    With weak typing INT8 and FP8 come with FP16, for all that is not quantized.
    """
    if spec.precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if not can.weak_typing or (can.strong_typing and spec.options["types"] == "graph"):
        return
    if spec.precision in ("fp16", "int8", "fp8"):
        config.set_flag(trt.BuilderFlag.FP16)
    if spec.precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    if can.opset_19:
        if spec.precision == "fp8":
            config.set_flag(trt.BuilderFlag.FP8)
        if spec.precision == "bf16":
            config.set_flag(trt.BuilderFlag.BF16)


def set_precision(spec: BuildSpec, network: trt.INetworkDefinition, config: trt.IBuilderConfig) -> int:
    """Set the flags, and hold the layers that `keep_fp32` names; returns how many are held."""
    set_flags(spec, config)
    if not can.weak_typing:
        return 0
    graph = spec.options["types"] == "graph"
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    explicit = spec.quantization.get("scheme") == "explicit"
    if spec.precision == "int8" and explicit and not any(x.type == trt.LayerType.QUANTIZE for x in layers):
        # All of it was left out of quantization: with the flag TensorRT would ask for ranges.
        config.clear_flag(trt.BuilderFlag.INT8)
    held = set() if graph else set(matching([layer.name for layer in layers], spec.options["keep_fp32"]))
    if held:
        obey_layers(config)
        _hold_in_fp32([layer for layer in layers if layer.name in held])
    return len(held)


def obey_layers(config: trt.IBuilderConfig) -> None:
    """Have the builder keep to the precisions that layers ask for, where they can."""
    if can.weak_typing:
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def _hold_in_fp32(layers: list[trt.ILayer]) -> None:
    """Have layers of floating-point outputs compute and give FP32; shape computations are left alone."""
    if not can.weak_typing:
        return
    for layer in layers:
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        if layer.type == trt.LayerType.CONSTANT or any(
            output.is_shape_tensor or output.dtype not in (trt.DataType.FLOAT, trt.DataType.HALF) for output in outputs
        ):
            continue
        layer.precision = trt.DataType.FLOAT
        for index in range(layer.num_outputs):
            layer.set_output_type(index, trt.DataType.FLOAT)
