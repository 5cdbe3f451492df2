# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-any-return"
"""Triton kernels between the FP8 products of an encoder: each reads and writes every value once.

- `attention`: attention of packed sequences with rounding to E4M3.
- `add_norm`: addition of the residual, layer normalization, and rounding to E4M3.

torch.compile can fuse the last one too, but not the rounding into attention.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from backends.torch_.fp8_linear import E4M3
from backends.torch_.triton_tiles import graph_times, to_e4m3

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.autotune(
    [
        triton.Config({"block_m": m, "block_n": n}, num_warps=warps, num_stages=stages)
        for m, n, warps, stages in ((128, 64, 4, 2), (128, 128, 8, 1), (64, 64, 4, 2), (64, 128, 4, 1))
    ],
    key=["about", "longest", "d"],
    do_bench=graph_times,
)
@triton.jit
def _attention(
    qkv, starts, out, inverse, about, longest, heads, factor, d: tl.constexpr,
    saturates: tl.constexpr, block_m: tl.constexpr, block_n: tl.constexpr,
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
    tl.store(place, to_e4m3(context * (tl.load(inverse) / weights)[:, None], saturates), (row < length)[:, None])


@torch.library.custom_op("suites::attention_e4m3", mutates_args=())
def _attention_op(qkv: torch.Tensor, starts: torch.Tensor, longest: int, inverse: torch.Tensor) -> torch.Tensor:
    tokens, _, heads, d = qkv.shape
    out = torch.empty(tokens, heads * d, dtype=E4M3, device=qkv.device)
    grid = lambda tile: (triton.cdiv(longest, tile["block_m"]), heads, starts.shape[0] - 1)  # noqa: E731
    size = (triton.next_power_of_2(tokens), triton.next_power_of_2(longest))
    _attention[grid](qkv, starts, out, inverse, *size, heads, LOG2_E.value / d**0.5, d, qkv.is_cuda)
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
    do_bench=graph_times,
)
@triton.jit
def _add_norm(
    x, residual, gamma, beta, out, rounded, inverse, epsilon, about, m, n, width: tl.constexpr,
    saturates: tl.constexpr, rows: tl.constexpr,
):  # fmt: skip
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
    tl.store(rounded + place, to_e4m3(normed * tl.load(inverse), saturates), inside)


@torch.library.custom_op("suites::add_norm_e4m3", mutates_args=())
def _add_norm_op(
    x: torch.Tensor, residual: torch.Tensor, norm: list[torch.Tensor], inverse: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    m, n = x.shape
    out, rounded = torch.empty_like(x), torch.empty_like(x, dtype=E4M3)
    grid = lambda tile: (triton.cdiv(m, tile["rows"]),)  # noqa: E731
    about, width = triton.next_power_of_2(m), triton.next_power_of_2(n)
    _add_norm[grid](x, residual, *norm, out, rounded, inverse, epsilon, about, m, n, width, x.is_cuda)
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
