# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""Triton kernel of products in FP8, with bias, and with GELU and rounding to E4M3 or an FP16 output.

Tiles are read and written through tensor descriptors, so the copy units of a Hopper GPU compute all addresses, and the
epilogue needs no mask. The inner size of most products is small (768 for BERT-base), so the epilogue decides much of
the time. A persistent program reads the next tile during the epilogue.

The tile follows from the number of rows by a rule, not by measurements at the first use: every process then runs the
same kernels, and none is compiled only to be rejected. docs/decisions/fp8.md has the measurements behind the rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from backends.torch_.fp8_gelu import COEFFICIENTS
from backends.torch_.fp8_linear import E4M3, Fp8Linear
from backends.torch_.triton_tiles import to_e4m3

P0, P1, P2, P3, P4, P5 = (tl.constexpr(coefficient) for coefficient in COEFFICIENTS)
GROUP = tl.constexpr(8)


class Tile(NamedTuple):
    """Sizes of the tiles of a product [m, k] x [k, n], and how its programs run.

    Attributes:
        persistent: whether there is one program for each multiprocessor, which computes several tiles.
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int
    persistent: bool = False


DATA_CENTER = (9, 10)
"""Major compute capabilities with about 227 KB of shared memory for a program. Others with FP8 have 99 KB."""

FEW_ROWS, SOME_ROWS, MANY_ROWS = 512, 2048, 8192


def tile_for(rows: int, outputs: int, major: int) -> Tile:
    """Return the tile of a product with this number of rows and of outputs, on a GPU of a major compute capability."""
    if major not in DATA_CENTER:
        return Tile(64, 64, 128, 4, 3) if rows <= SOME_ROWS else Tile(128, 128, 128, 8, 2)
    if rows <= FEW_ROWS:
        return Tile(64, 64, 256, 4, 3) if outputs >= 1536 else Tile(64, 32, 256, 4, 4)
    if rows <= SOME_ROWS:
        return Tile(128, 128, 128, 8, 3) if outputs >= 1536 else Tile(64, 128, 128, 4, 4)
    return Tile(128, 256, 128, 8, 3, persistent=True)


@triton.jit
def _gelu(x):
    """Return GELU of FP32 values by the formula of fp8_gelu.py."""
    size = tl.abs(x)
    power = P0 + size * (P1 + size * (P2 + size * (P3 + size * (P4 + size * P5))))
    return tl.maximum(x, 0.0) - size * tl.exp2(power)


@triton.jit
def _compute_tile(
    number, x, weight, out, bias, scale, inverse, m, n: tl.constexpr, k: tl.constexpr, gelu: tl.constexpr,
    saturates: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
):  # fmt: skip
    """Compute a tile. Tiles with neighbouring numbers share rows of `weight`, so that they stay in the L2 cache."""
    group = GROUP * tl.cdiv(n, block_n)
    first = (number // group) * GROUP
    height = tl.minimum(tl.cdiv(m, block_m) - first, GROUP)
    row, column = (first + number % group % height) * block_m, (number % group // height) * block_n
    total = tl.zeros((block_m, block_n), tl.float32)
    for start in range(0, k, block_k):
        total = tl.dot(x.load([row, start]), weight.load([column, start]).T, total)
    columns = column + tl.arange(0, block_n)
    sums = total * scale + tl.load(bias + columns, columns < n, 0.0).to(tl.float32)[None, :]
    if gelu:
        out.store([row, column], to_e4m3(_gelu(sums) * inverse, saturates))
    else:
        out.store([row, column], sums.to(tl.float16))


@triton.jit
def _product(
    x, weight, bias, out, x_scale, weight_scale, inverse, m, n: tl.constexpr, k: tl.constexpr, gelu: tl.constexpr,
    saturates: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr,
    persistent: tl.constexpr,
):  # fmt: skip
    """out [m, n] = x [m, k] weight [n, k]^T * x_scale * weight_scale + bias [n], in FP16.

    With `gelu`: E4M3(inverse * gelu of that).
    """
    scale, factor = tl.load(x_scale) * tl.load(weight_scale), tl.load(inverse)
    if persistent:
        tiles = tl.cdiv(m, block_m) * tl.cdiv(n, block_n)
        for number in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=True):
            _compute_tile(
                number, x, weight, out, bias, scale, factor, m, n, k, gelu, saturates, block_m, block_n, block_k
            )  # fmt: skip
    else:
        _compute_tile(
            tl.program_id(0), x, weight, out, bias, scale, factor, m, n, k, gelu, saturates, block_m, block_n, block_k
        )  # fmt: skip


def run_product(
    x: torch.Tensor,
    layer: tuple[torch.Tensor, torch.Tensor],
    scales: Sequence[torch.Tensor],
    out: torch.Tensor,
    tile: Tile,
) -> None:
    """Write a product to `out` [rows, outputs]: with GELU if it is E4M3, without if it is FP16.

    Args:
        x: E4M3 [rows, inputs].
        layer: weight, E4M3 [outputs, inputs], and bias, FP16 [outputs].
        scales: scale of `x`, scale of the weight, and inverse of the scale of the result, FP32 [].
    """
    (weight, bias), (m, k) = layer, x.shape
    n = weight.shape[0]
    programs = triton.cdiv(m, tile.m) * triton.cdiv(n, tile.n)
    if tile.persistent and x.is_cuda:
        programs = min(programs, torch.cuda.get_device_properties(x.device).multi_processor_count)
    _product[(programs,)](
        TensorDescriptor.from_tensor(x, [tile.m, tile.k]),
        TensorDescriptor.from_tensor(weight, [tile.n, tile.k]),
        bias,
        TensorDescriptor.from_tensor(out, [tile.m, tile.n]),
        *scales, m, n, k, out.dtype == E4M3, x.is_cuda, tile.m, tile.n, tile.k, tile.persistent,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip


def _major(device: torch.device) -> int:
    return torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else DATA_CENTER[0]


@torch.library.custom_op("suites::linear_gelu_e4m3", mutates_args=())
def _linear_gelu_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]
) -> torch.Tensor:
    out = torch.empty(len(x), len(weight), dtype=E4M3, device=x.device)
    run_product(x, (weight, bias), scales, out, tile_for(len(x), len(weight), _major(x.device)))
    return out


@_linear_gelu_op.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("suites::linear_e4m3", mutates_args=())
def _linear_op(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]) -> torch.Tensor:
    major = _major(x.device)
    if major != DATA_CENTER[0] or SOME_ROWS < len(x) <= MANY_ROWS:
        x_scale, weight_scale, _ = scales
        return torch._scaled_mm(
            x,
            weight.t(),
            scale_a=x_scale,
            scale_b=weight_scale,
            bias=bias,
            out_dtype=torch.float16,
            use_fast_accum=True,
        )
    out = torch.empty(len(x), len(weight), dtype=torch.float16, device=x.device)
    run_product(x, (weight, bias), scales, out, tile_for(len(x), len(weight), major))
    return out


@_linear_op.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor]) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=torch.float16)


def linear_gelu(x: torch.Tensor, up: Fp8Linear, inverse: torch.Tensor) -> torch.Tensor:
    """Return GELU of a linear layer, rounded to E4M3: [rows, outputs].

    Args:
        x: E4M3 [rows, inputs], the rounded input of the layer.
        up: the layer, with a bias.
        inverse: inverse of the scale of the result, FP32 [].
    """
    assert up.bias is not None
    return _linear_gelu_op(x, up.weight, up.bias, [up.input_scale, up.weight_scale, inverse])


def linear(x: torch.Tensor, layer: Fp8Linear) -> torch.Tensor:
    """Return a linear layer in FP16: [rows, outputs].

    On Hopper, the kernel of this file is faster than cuBLAS with up to SOME_ROWS and with more than MANY_ROWS rows.
    Otherwise cuBLAS computes the product.

    Args:
        x: E4M3 [rows, inputs], the rounded input of the layer.
        layer: the layer, with a bias.
    """
    assert layer.bias is not None
    return _linear_op(x, layer.weight, layer.bias, [layer.input_scale, layer.weight_scale, layer.inverse])
