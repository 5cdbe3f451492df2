"""Precisions that GPUs compute, by compute capability."""

from __future__ import annotations

from backends.base import Device

LEAST_CAPABILITY = {"fp32": (0, 0), "tf32": (8, 0), "fp16": (5, 3), "bf16": (8, 0), "fp8": (8, 9), "int8": (7, 5)}
"""Smallest compute capability of a GPU with products in a precision, from the table of arithmetic instructions in
NVIDIA's CUDA C++ Programming Guide."""


def missing_capability(device: Device, precision: str) -> str:
    """Return why a GPU has no products in this precision; empty if it has them."""
    least, has = LEAST_CAPABILITY[precision], device.compute_capability
    if has >= least:
        return ""
    return f"{precision} needs compute capability {least[0]}.{least[1]}; {device.name} has {has[0]}.{has[1]}"
