"""Conversion of weights to FP16 with the results of onnxruntime, in fewer passes over them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

from backends.base import Array


def to_half(values: Array, smallest: float = 5.96e-08, largest: float = 65504.0) -> Array:
    """Return floating-point numbers in FP16, like `convert_np_to_float16` of onnxruntime.

    A number that would become 0 or infinite gets the smallest or largest magnitude instead, with its sign. NaN, 0 and
    infinite numbers stay as they are.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        half = values.astype(np.float16)
    magnitudes = half.view(np.uint16) & 0x7FFF
    for found, magnitude in (
        ((magnitudes == 0) & (values != 0), smallest),
        ((magnitudes == 0x7C00) & np.isfinite(values), largest),
    ):
        half[found] = np.copysign(np.float16(magnitude), values[found])
    return half


@contextlib.contextmanager
def faster_conversion(convert: Callable[..., object]) -> Iterator[None]:
    """Let a converter of onnxruntime, `convert_float_to_float16`, call `to_half`.

    Its own function makes about thirty passes over the weights, which takes seconds.
    """
    module = sys.modules[convert.__module__]
    own = module.convert_np_to_float16
    module.convert_np_to_float16 = to_half  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.convert_np_to_float16 = own  # type: ignore[attr-defined]
