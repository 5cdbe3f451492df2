"""Linear layers in FP8: E4M3 weights and inputs with static scales, FP16 outputs.

A scale is the largest absolute value divided by LARGEST: one scale for a weight, and one for its input, from
calibration. The weight is rounded once. The rounding of the input is plain elementwise code, so torch.compile fuses it
with the norm, the activation or the addition before it.

A GPU computes products by `torch._scaled_mm`. That function can take seconds for a product on a CPU, so a CPU computes
the products of the same numbers in FP32.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from backends.base import Unsupported

E4M3 = torch.float8_e4m3fn

LARGEST = 448.0
"""Largest value of E4M3. Larger values are limited to it, because a conversion may turn them into NaN."""

MULTIPLE = 16
"""cuBLAS multiplies FP8 matrices only if both sizes of the weight are multiples of this number."""


def scale_of(largest: float, name: str) -> float:
    """Return the scale of a tensor.

    Args:
        largest: its largest absolute value.
        name: description of the tensor for the message.

    Raises:
        Unsupported: no scale is possible, because `largest` is zero, infinite or NaN.
    """
    scale = largest / LARGEST
    if not math.isfinite(scale) or scale < torch.finfo(torch.float32).tiny:
        raise Unsupported(
            f"FP8 has no scale for {name}: its largest absolute value is {largest:g}; check the checkpoint and the "
            "calibration texts, or name the layer in quantization.leave_out"
        )
    return scale


def fits(module: torch.nn.Linear) -> bool:
    """Return whether an FP8 product is possible with the sizes of a layer."""
    return module.in_features % MULTIPLE == 0 and module.out_features % MULTIPLE == 0


class Fp8Linear(torch.nn.Module):
    """A linear layer x W^T + b in FP8: FP16 [..., in_features] to FP16 [..., out_features]."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, largest_input: float, name: str) -> None:
        """
        Args:
            weight: FP32 [out_features, in_features].
            bias: [out_features], or None.
            largest_input: largest absolute input in calibration.
            name: name of the layer for messages.

        Raises:
            Unsupported: see `scale_of`.
        """
        super().__init__()
        input_scale = scale_of(largest_input, f"the input of {name}")
        weight_scale = scale_of(weight.abs().max().item(), f"the weight of {name}")
        self.weight = torch.nn.Buffer(to_e4m3(weight, torch.tensor(1 / weight_scale)))
        self.bias = None if bias is None else torch.nn.Buffer(bias.detach().half())
        # Scales are tensors and not numbers, so that layers of the same sizes share one compiled kernel.
        self.input_scale = torch.nn.Buffer(torch.tensor(input_scale))
        self.weight_scale = torch.nn.Buffer(torch.tensor(weight_scale))
        self.inverse = torch.nn.Buffer(torch.tensor(1 / input_scale))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output for `x`, which is FP16, or E4M3 if it is already rounded with the scale of this layer."""
        return self.product(self.rounded(x)).reshape(*x.shape[:-1], -1)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x` as E4M3 [rows, in_features]."""
        rows = x.reshape(-1, x.shape[-1])
        return rows if x.dtype == E4M3 else to_e4m3(rows, self.inverse)

    def product(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the output for rounded rows. The weight is passed in columns, the only order of cuBLAS for FP8."""
        if not rows.is_cuda:
            return self._product_in_fp32(rows)
        return torch._scaled_mm(
            rows,
            self.weight.t(),
            scale_a=self.input_scale,
            scale_b=self.weight_scale,
            bias=self.bias,
            out_dtype=torch.float16,
            use_fast_accum=True,
        )

    def _product_in_fp32(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the output for rounded rows. Products of two E4M3 numbers are exact in FP32."""
        output = functional.linear(rows.float(), self.weight.float()) * (self.input_scale * self.weight_scale)
        return (output if self.bias is None else output + self.bias).half()


def to_e4m3(x: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
    """Round x * inverse to E4M3, limited to LARGEST. `inverse` is FP32 []."""
    return (x.float() * inverse).clamp(-LARGEST, LARGEST).to(E4M3)


def widen_weights(model: torch.nn.Module) -> None:
    """Store the E4M3 weights of a model on a CPU as FP32, in place. Their values stay the same.

    Otherwise each product converts its weight again, which takes longer than the product of a small batch.
    """
    for module in model.modules():
        if isinstance(module, Fp8Linear):
            module.weight = torch.nn.Buffer(module.weight.float())
