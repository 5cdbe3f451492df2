"""Convert an encoder to FP16 or BF16 and keep some modules in FP32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from backends.model.layer_names import node_path
from backends.onnx_.onnx_casts import matching_names


def convert_except(model: torch.nn.Module, dtype: torch.dtype, keep_fp32: Sequence[str]) -> None:
    """Convert an FP32 model to `dtype` in place, except modules that match the patterns `keep_fp32`.

    Modules are named like ONNX nodes: encoder.layer.0.output.dense is /encoder/layer.0/output/dense/. A tensor stays in
    FP32 between two modules in FP32. Any other module casts its inputs to `dtype`.

    Raises:
        ValueError: a pattern matches no module.
    """
    leaves = {f"/{node_path(name)}/": module for name, module in model.named_modules() if not any(module.children())}
    kept = set(matching_names(list(leaves), keep_fp32))
    for name, module in leaves.items():
        module_dtype = torch.float32 if name in kept else dtype
        module.to(module_dtype)
        module.register_forward_pre_hook(_cast_inputs(module_dtype))


def _cast_inputs(dtype: torch.dtype) -> Callable[[torch.nn.Module, tuple[object, ...]], tuple[object, ...]]:
    """Return a hook that casts a module's floating-point inputs."""

    def cast(_: torch.nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in inputs)

    return cast
