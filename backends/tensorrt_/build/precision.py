"""Precision of a network. Builder flags set it in releases that have them; otherwise the types of the graph set it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backends.base import BuildSpec
from backends.onnx_.onnx_casts import matching_names, sums_of_squares
from backends.tensorrt_.build.build_target import BuildTarget
from backends.tensorrt_.runtime.tensorrt_api import TensorRTApi
from backends.tensorrt_.runtime.tensorrt_options import TensorRTOptions, Types

if TYPE_CHECKING:
    import tensorrt as trt


def set_flags(target: BuildTarget, spec: BuildSpec) -> None:
    """Set the builder flags of `spec.precision`, in releases that have them.

    With weak typing, INT8 and FP8 also set FP16, for the layers that are not quantized.
    """
    trt, can, config = target.api.trt, target.api.can, target.config
    if spec.precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if not can.weak_typing or (can.strong_typing and spec.options_as(TensorRTOptions).types is Types.graph):
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


def set_precision(target: BuildTarget, spec: BuildSpec) -> int:
    """Set the flags, and keep the layers that match `keep_fp32` in FP32. Return the number of these layers.

    RMSNorm stays in FP32 too: in FP16 its sums overflow.
    """
    trt, can, network, config = target.api.trt, target.api.can, target.network, target.config
    set_flags(target, spec)
    if not can.weak_typing:
        return 0
    options = spec.options_as(TensorRTOptions)
    graph = options.types is Types.graph
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    explicit = spec.quantization.explicit
    if spec.precision == "int8" and explicit and not any(layer.type == trt.LayerType.QUANTIZE for layer in layers):
        # Nothing in the graph is quantized. With the flag TensorRT would require ranges.
        config.clear_flag(trt.BuilderFlag.INT8)
    if graph:
        return 0
    names = [layer.name for layer in layers]
    kept_names = set(matching_names(names, options.keep_fp32))
    if in_fp32 := kept_names | set(sums_of_squares(names, ("ReduceMean",))):
        obey_layers(target)
        _keep_in_fp32(target.api, [layer for layer in layers if layer.name in in_fp32])
    return len(kept_names)


def obey_layers(target: BuildTarget) -> None:
    """Make the builder obey the precisions that layers request, in releases in which layers can request them."""
    trt, can = target.api.trt, target.api.can
    if can.weak_typing:
        target.config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)


def _keep_in_fp32(api: TensorRTApi, layers: list[trt.ILayer]) -> None:
    """Make layers with floating-point outputs compute and return FP32. Shape computations do not change."""
    trt, can = api.trt, api.can
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
