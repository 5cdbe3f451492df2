"""An encoder in FP16 or BF16 of which some modules stay in FP32."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch

from backends.typed import matching


def lower(model: torch.nn.Module, kind: torch.dtype, keep_fp32: Sequence[str]) -> None:
    """Have an FP32 model compute in `kind`, but for the modules that the patterns `keep_fp32` name.

    Modules are named like ONNX nodes: encoder.layer.0.output.dense is /encoder/layer.0/output/dense/. What flows from
    one held module to another is not rounded between them; what reaches another module is.

    Raises:
        ValueError: a pattern names no module.
    """
    leaves = {
        f"/{re.sub(r'[.](?=[^0-9])', '/', name)}/": module
        for name, module in model.named_modules()
        if not any(module.children())
    }
    held = set(matching(list(leaves), keep_fp32))
    for name, module in leaves.items():
        own = torch.float32 if name in held else kind
        module.to(own)
        module.register_forward_pre_hook(_reads(own))


def _reads(kind: torch.dtype) -> Any:
    """A hook that casts what a module is given, where it is of floating point."""

    def cast(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(x.to(kind) if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given)

    return cast
