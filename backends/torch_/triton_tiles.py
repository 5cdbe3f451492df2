# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""Parts that the Triton kernels of FP8 share: the rounding to E4M3 and the times that choose tile sizes.

Triton measures tile sizes at the first use of a size, in a CUDA graph. The launch of a small kernel takes longer than
the kernel, so times of launches would leave the choice to chance. Numbers of rows between two powers of two share a
choice (the parameter `about`), because packed tokens have a different number in almost every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import triton
import triton.language as tl
from triton.testing import do_bench_cudagraph

from backends.torch_.fp8_linear import LARGEST as LARGEST_E4M3

LARGEST = tl.constexpr(LARGEST_E4M3)


def graph_times(call: Callable[[], object], quantiles: Sequence[float]) -> object:
    """Return quantiles of the time of a kernel in ms, measured in a CUDA graph."""
    return do_bench_cudagraph(call, quantiles=quantiles)


@triton.jit
def to_e4m3(x, saturates: tl.constexpr):
    """Round FP32 values to E4M3, limited to its largest value. `saturates`: the conversion of a GPU limits them."""
    if not saturates:
        x = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
    return x.to(tl.float8e4nv)
