# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""Triton kernels between the FP8 products of an encoder: each reads and writes every value once.

- `linear_gelu`: the first product of the feed-forward block, with bias, GELU and rounding to E4M3.
- `attention`: attention of packed sequences with rounding to E4M3.
- `add_norm`: addition of the residual, layer normalization, and rounding to E4M3.

Triton measures tile sizes at the first use of a size. Numbers of rows between two powers of two share a choice (the
parameter `about`), because packed tokens have a different number in almost every batch.

torch.compile can fuse the last one too, but neither GELU into a product of cuBLAS nor the rounding into attention.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backends.onnx_.gelu import COEFFICIENTS, EDGE
from backends.torch_.fp8_linear import E4M3, Fp8Linear

LOG2_E = tl.constexpr(1.4426950408889634)
C0, C1, C2, C3, C4 = (tl.constexpr(-LOG2_E.value * coefficient) for coefficient in COEFFICIENTS)
LIMIT = tl.constexpr(EDGE)
LARGEST = tl.constexpr(448.0)

SIGMOID = tl.constexpr("{ .reg .f32 e; ex2.approx.ftz.f32 e, $1; add.f32 e, e, 0f3F800000; rcp.approx.ftz.f32 $0, e; }")
"""1 / (1 + 2^x) in PTX, without the instructions for denormal numbers. The relative error is about 2^-22."""


@triton.jit
def _gelu(x, fast: tl.constexpr):
    """Return GELU by the formula `by_sigmoid` of backends/onnx_/gelu.py; `fast` for a GPU."""
    clipped = tl.minimum(tl.maximum(x, -LIMIT), LIMIT)
    square = clipped * clipped
    power = clipped * (C0 + square * (C1 + square * (C2 + square * (C3 + square * C4))))
    if fast:
        share = tl.inline_asm_elementwise(SIGMOID, "=f,f", [power], tl.float32, True, 1)
    else:
        share = 1 / (1 + tl.exp2(power))
    return x * share


@triton.jit
def _store_e4m3(pointer, x, mask):
    tl.store(pointer, tl.minimum(tl.maximum(x, -LARGEST), LARGEST).to(tl.float8e4nv), mask)


GELU_TILES = [
    triton.Config({"block_m": m, "block_n": n, "block_k": 128}, num_warps=warps, num_stages=stages)
    for m, n, warps, stages in (
        (128, 128, 4, 3), (128, 128, 8, 3), (128, 256, 8, 3), (64, 128, 4, 4), (64, 64, 4, 5), (128, 128, 4, 2),
        (256, 128, 8, 3), (128, 256, 8, 4),
    )
]  # fmt: skip


@triton.autotune(GELU_TILES, key=["about", "n", "k"])
@triton.heuristics({"whole": lambda values: values["k"] % values["block_k"] == 0})
@triton.jit
def _linear_gelu(
    x, weight, bias, out, x_scale, weight_scale, inverse, about, m, n, k, fast: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr, block_k: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """out [m, n] = E4M3(inverse * gelu(x [m, k] weight [n, k]^T * x_scale * weight_scale + bias [n])).

    Programs with neighbouring numbers share rows of `weight`, so that they stay in the L2 cache.
    """
    rows_of_tiles, columns_of_tiles = tl.cdiv(m, block_m), tl.cdiv(n, block_n)
    group = 8 * columns_of_tiles
    first = (tl.program_id(0) // group) * 8
    height = tl.minimum(rows_of_tiles - first, 8)
    row = (first + tl.program_id(0) % group % height) * block_m + tl.arange(0, block_m)
    column = (tl.program_id(0) % group // height) * block_n + tl.arange(0, block_n)
    inner = tl.arange(0, block_k)
    x_tile = x + (row % m)[:, None] * k + inner[None, :]
    weight_tile = weight + (column % n)[None, :] * k + inner[:, None]
    total = tl.zeros((block_m, block_n), tl.float32)
    for start in range(0, k, block_k):
        if whole:
            left, right = tl.load(x_tile + start), tl.load(weight_tile + start)
        else:
            inside = inner < k - start
            left = tl.load(x_tile + start, inside[None, :], 0.0)
            right = tl.load(weight_tile + start, inside[:, None], 0.0)
        total = tl.dot(left, right, total)
    scale = tl.load(x_scale) * tl.load(weight_scale)
    sums = total * scale + tl.load(bias + column, column < n, 0.0).to(tl.float32)[None, :]
    place = out + row[:, None] * n + column[None, :]
    _store_e4m3(place, _gelu(sums, fast) * tl.load(inverse), (row < m)[:, None] & (column < n)[None, :])


@torch.library.custom_op("suites::linear_gelu", mutates_args=())
def _linear_gelu_op(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor], fast: bool
) -> torch.Tensor:
    (m, k), n = x.shape, weight.shape[0]
    out = torch.empty(m, n, dtype=E4M3, device=x.device)
    grid = lambda tile: (triton.cdiv(m, tile["block_m"]) * triton.cdiv(n, tile["block_n"]),)  # noqa: E731
    _linear_gelu[grid](x, weight, bias, out, *scales, triton.next_power_of_2(m), m, n, k, fast)
    return out


@_linear_gelu_op.register_fake
def _(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, scales: list[torch.Tensor], fast: bool
) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


def linear_gelu(x: torch.Tensor, up: Fp8Linear, inverse: torch.Tensor) -> torch.Tensor:
    """Return GELU of a linear layer, rounded to E4M3: [rows, outputs].

    Args:
        x: E4M3 [rows, inputs], the rounded input of the layer.
        up: the layer, with a bias.
        inverse: inverse of the scale of the result, FP32 [].
    """
    assert up.bias is not None
    return _linear_gelu_op(x, up.weight, up.bias, [up.input_scale, up.weight_scale, inverse], x.is_cuda)


@triton.autotune(
    [
        triton.Config({"block_m": m, "block_n": n}, num_warps=warps, num_stages=stages)
        for m, n, warps, stages in ((128, 64, 4, 2), (128, 128, 8, 1), (64, 64, 4, 2), (64, 128, 4, 1))
    ],
    key=["about", "longest", "d"],
)
@triton.jit
def _attention(
    qkv, starts, out, inverse, about, longest, heads, factor, d: tl.constexpr,
    block_m: tl.constexpr, block_n: tl.constexpr,
):  # fmt: skip
    """Attention of one head and of `block_m` queries of one sequence; see `attention`. Softmax is computed online."""
    sequence, head = tl.program_id(2), tl.program_id(1)
    start = tl.load(starts + sequence)
    length = tl.load(starts + sequence + 1) - start
    row = tl.program_id(0) * block_m + tl.arange(0, block_m)
    if tl.program_id(0) * block_m >= length:
        return
    feature = tl.arange(0, d)
    stride = 3 * heads * d
    first = qkv + start * stride + head * d + feature
    query = tl.load(first[None, :] + row[:, None] * stride, (row < length)[:, None], 0.0)
    highest = tl.full((block_m,), float("-inf"), tl.float32)
    weights = tl.zeros((block_m,), tl.float32)
    context = tl.zeros((block_m, d), tl.float32)
    for begin in range(0, length, block_n):
        other = begin + tl.arange(0, block_n)
        inside = other < length
        place = first[None, :] + other[:, None] * stride
        key = tl.load(place + heads * d, inside[:, None], 0.0)
        scores = tl.where(inside[None, :], tl.dot(query, key.T) * factor, float("-inf"))
        limit = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2(scores - limit[:, None])
        shrink = tl.exp2(highest - limit)
        value = tl.load(place + 2 * heads * d, inside[:, None], 0.0)
        weights = weights * shrink + tl.sum(shares, 1)
        context = tl.dot(shares.to(value.dtype), value, context * shrink[:, None])
        highest = limit
    place = out + ((start + row) * heads + head)[:, None] * d + feature[None, :]
    _store_e4m3(place, context * (tl.load(inverse) / weights)[:, None], (row < length)[:, None])


@torch.library.custom_op("suites::attention_e4m3", mutates_args=())
def _attention_op(qkv: torch.Tensor, starts: torch.Tensor, longest: int, inverse: torch.Tensor) -> torch.Tensor:
    tokens, _, heads, d = qkv.shape
    out = torch.empty(tokens, heads * d, dtype=E4M3, device=qkv.device)
    grid = lambda tile: (triton.cdiv(longest, tile["block_m"]), heads, starts.shape[0] - 1)  # noqa: E731
    size = (triton.next_power_of_2(tokens), triton.next_power_of_2(longest))
    _attention[grid](qkv, starts, out, inverse, *size, heads, LOG2_E.value / d**0.5, d)
    return out


@_attention_op.register_fake
def _(qkv: torch.Tensor, starts: torch.Tensor, longest: int, inverse: torch.Tensor) -> torch.Tensor:
    return qkv.new_empty(qkv.shape[0], qkv.shape[2] * qkv.shape[3], dtype=E4M3)


def attention(qkv: torch.Tensor, starts: torch.Tensor, longest: int, inverse: torch.Tensor) -> torch.Tensor:
    """Return attention within each sequence, rounded to E4M3: [tokens, heads * d].

    The values of tokens after the last sequence are undefined.

    Args:
        qkv: query, key and value in FP16, contiguous [tokens, 3, heads, d]. d is a power of two, at least 16.
        starts: first token of each sequence, and the end of the last one, int32 [batch + 1].
        longest: number of tokens of the longest sequence, or more.
        inverse: inverse of the scale of the result, FP32 [].
    """
    return _attention_op(qkv, starts, longest, inverse)


@triton.autotune(
    [
        triton.Config({"rows": rows}, num_warps=warps)
        for rows, warps in ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4), (4, 8))
    ],
    key=["about", "n"],
)
@triton.jit
def _add_norm(
    x, residual, gamma, beta, out, rounded, inverse, epsilon, about, m, n, width: tl.constexpr, rows: tl.constexpr
):
    """See `add_norm`. `width` is n, rounded up to a power of two."""
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    column = tl.arange(0, width)
    known = (column < n)[None, :]
    inside = (row < m)[:, None] & known
    place = row[:, None] * n + column[None, :]
    total = tl.load(x + place, inside, 0.0).to(tl.float32) + tl.load(residual + place, inside, 0.0).to(tl.float32)
    mean = tl.sum(total, 1) / n
    centred = tl.where(known, total - mean[:, None], 0.0)
    spread = tl.rsqrt(tl.sum(centred * centred, 1) / n + epsilon)
    factor = tl.load(gamma + column, column < n, 0.0).to(tl.float32)[None, :]
    shift = tl.load(beta + column, column < n, 0.0).to(tl.float32)[None, :]
    normed = centred * spread[:, None] * factor + shift
    tl.store(out + place, normed.to(tl.float16), inside)
    _store_e4m3(rounded + place, normed * tl.load(inverse), inside)


@torch.library.custom_op("suites::add_norm_e4m3", mutates_args=())
def _add_norm_op(
    x: torch.Tensor, residual: torch.Tensor, norm: list[torch.Tensor], inverse: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    m, n = x.shape
    out, rounded = torch.empty_like(x), torch.empty_like(x, dtype=E4M3)
    grid = lambda tile: (triton.cdiv(m, tile["rows"]),)  # noqa: E731
    about, width = triton.next_power_of_2(m), triton.next_power_of_2(n)
    _add_norm[grid](x, residual, *norm, out, rounded, inverse, epsilon, about, m, n, width)
    return out, rounded


@_add_norm_op.register_fake
def _(
    x: torch.Tensor, residual: torch.Tensor, norm: list[torch.Tensor], inverse: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=E4M3)


def add_norm(
    x: torch.Tensor, residual: torch.Tensor, norm: list[torch.Tensor], inverse: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the layer normalization of x + residual, in FP16 and rounded to E4M3.

    Args:
        x, residual: FP16, contiguous [rows, features].
        norm: gamma and beta [features].
        inverse: inverse of the scale of the E4M3 result, FP32 [].
        epsilon: epsilon of layer normalization.
    """
    return _add_norm_op(x, residual, norm, inverse, epsilon)
