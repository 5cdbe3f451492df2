# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""Triton kernel of the first product of a feed-forward block in FP8, with bias, GELU and rounding to E4M3.

Tiles are read and written through tensor descriptors, so the copy units of a Hopper GPU compute all addresses, and the
epilogue needs no mask. The inner size of the product is small (768 for BERT-base), so the epilogue decides much of the
time. A persistent program reads the next tile during the epilogue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from backends.torch_.fp8_gelu import COEFFICIENTS
from backends.torch_.fp8_linear import E4M3, Fp8Linear
from backends.torch_.triton_tiles import graph_times, to_e4m3

P0, P1, P2, P3, P4, P5 = (tl.constexpr(coefficient) for coefficient in COEFFICIENTS)
GROUP = tl.constexpr(8)


@triton.jit
def _gelu(x):
    """Return GELU of FP32 values by the formula of fp8_gelu.py."""
    size = tl.abs(x)
    power = P0 + size * (P1 + size * (P2 + size * (P3 + size * (P4 + size * P5))))
    return tl.maximum(x, 0.0) - size * tl.exp2(power)


@triton.jit
def _store(
    total, out, bias, row, column, scale, inverse, n: tl.constexpr, width: tl.constexpr, saturates: tl.constexpr
):
    """Store columns `column` to `column + width` of a tile."""
    columns = column + tl.arange(0, width)
    sums = total * scale + tl.load(bias + columns, columns < n, 0.0).to(tl.float32)[None, :]
    out.store([row, column], to_e4m3(_gelu(sums) * inverse, saturates))


@triton.jit
def _tile(
    number, x, weight, out, bias, scale, inverse, m, n: tl.constexpr, k: tl.constexpr, saturates: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, parts: tl.constexpr,
):  # fmt: skip
    """Compute a tile. Tiles with neighbouring numbers share rows of `weight`, so that they stay in the L2 cache."""
    tl.static_assert(parts == 1 or parts == 2)
    group = GROUP * tl.cdiv(n, block_n)
    first = (number // group) * GROUP
    height = tl.minimum(tl.cdiv(m, block_m) - first, GROUP)
    row, column = (first + number % group % height) * block_m, (number % group // height) * block_n
    total = tl.zeros((block_m, block_n), tl.float32)
    for start in range(0, k, block_k):
        total = tl.dot(x.load([row, start]), weight.load([column, start]).T, total)
    width: tl.constexpr = block_n // parts
    if parts == 1:
        _store(total, out, bias, row, column, scale, inverse, n, width, saturates)
    else:
        left, right = tl.reshape(total, (block_m, 2, width)).permute(0, 2, 1).split()
        _store(left, out, bias, row, column, scale, inverse, n, width, saturates)
        _store(right, out, bias, row, column + width, scale, inverse, n, width, saturates)


def _set_blocks(values) -> None:
    """Set the sizes of the tiles that the descriptors copy."""
    m, n, k = (values[f"block_{name}"] for name in "mnk")
    values["x"].block_shape = [m, k]
    values["weight"].block_shape = [n, k]
    values["out"].block_shape = [m, n // values["parts"]]


def _config(m: int, n: int, warps: int, stages: int, parts: int = 0) -> triton.Config:
    """Return a tile of m x n values. With `parts`, programs are persistent and store a tile in as many parts."""
    blocks = {"block_m": m, "block_n": n, "block_k": 128, "parts": max(parts, 1), "persistent": parts > 0}
    return triton.Config(blocks, num_warps=warps, num_stages=stages, pre_hook=_set_blocks)


TILES = [
    _config(*tile)
    for tile in (
        (128, 256, 8, 3, 1), (128, 256, 8, 3, 2), (128, 256, 8, 4, 2), (128, 128, 8, 4, 1), (128, 256, 8, 4),
        (256, 128, 8, 4), (128, 128, 4, 3), (128, 128, 8, 3), (64, 128, 4, 4), (64, 64, 4, 5), (64, 32, 4, 6),
    )
]  # fmt: skip


@triton.autotune(TILES, key=["about", "n", "k"], do_bench=graph_times)
@triton.jit
def _linear_gelu(
    x, weight, bias, out, x_scale, weight_scale, inverse, about, m, n: tl.constexpr, k: tl.constexpr,
    saturates: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, parts: tl.constexpr,
    persistent: tl.constexpr,
):  # fmt: skip
    """out [m, n] = E4M3(inverse * gelu(x [m, k] weight [n, k]^T * x_scale * weight_scale + bias [n]))."""
    scale, factor = tl.load(x_scale) * tl.load(weight_scale), tl.load(inverse)
    if persistent:
        tiles = tl.cdiv(m, block_m) * tl.cdiv(n, block_n)
        for number in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
            _tile(
                number, x, weight, out, bias, scale, factor, m, n, k, saturates, block_m, block_n, block_k, parts
            )  # fmt: skip
    else:
        _tile(
            tl.program_id(0), x, weight, out, bias, scale, factor, m, n, k, saturates, block_m, block_n, block_k, parts
        )  # fmt: skip


@torch.library.custom_op("suites::linear_gelu", mutates_args=())
def _linear_gelu_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]
) -> torch.Tensor:
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=E4M3, device=x.device)
    _linear_gelu[_programs(m, n, x.device)](*_arguments(x, weight, bias, out, scales), m, n, k, x.is_cuda)
    return out


def _arguments(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, out: torch.Tensor, scales: Sequence[torch.Tensor]
) -> tuple[object, ...]:
    """Return the first arguments of the kernel. `_set_blocks` sets the sizes of the descriptors."""
    read, constant, written = (TensorDescriptor.from_tensor(tensor, [1, 16]) for tensor in (x, weight, out))
    return read, constant, bias, written, *scales, triton.next_power_of_2(len(x))


def _programs(m: int, n: int, device: torch.device) -> Callable[[dict[str, int]], tuple[int]]:
    """Return the number of programs for a tile: one per tile, or at most one per multiprocessor if persistent."""

    def grid(tile: dict[str, int]) -> tuple[int]:
        tiles = triton.cdiv(m, tile["block_m"]) * triton.cdiv(n, tile["block_n"])
        if not tile["persistent"]:
            return (tiles,)
        return (min(tiles, torch.cuda.get_device_properties(device).multi_processor_count),)

    return grid


@_linear_gelu_op.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def linear_gelu(x: torch.Tensor, up: Fp8Linear, inverse: torch.Tensor) -> torch.Tensor:
    """Return GELU of a linear layer, rounded to E4M3: [rows, outputs].

    Args:
        x: E4M3 [rows, inputs], the rounded input of the layer.
        up: the layer, with a bias.
        inverse: inverse of the scale of the result, FP32 [].
    """
    assert up.bias is not None
    return _linear_gelu_op(x, up.weight, up.bias, [up.input_scale, up.weight_scale, inverse])
