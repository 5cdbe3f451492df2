"""GELU with one special function: max(x, 0) - |x| Phi(-|x|), where Phi is the cumulative normal distribution.

The kernel of GELU and the rounding to FP8 has so many instructions with erf that they decide its time. The formulas of
backends/onnx_/gelu.py need an exponential and a division. This one needs an exponential alone: Phi(-t) = 2^P(t).
"""

from __future__ import annotations

import torch

COEFFICIENTS = (
    -1.0000376388745722,
    -1.1507877351730966,
    -0.4599927082460543,
    -0.05182711900251333,
    0.0070844437048423175,
    -0.0004732917694024601,
)
"""Coefficients of 1, t, t^2, ... of P, which approximates log2(Phi(-t)) for t >= 0.

A linear program minimized the largest error of GELU for t up to 6. In FP32 the error is at most 7e-7. The results for
negative x are within 0.01% of GELU down to x = -3, and within 0.4% down to x = -4. Beyond 6, P falls to minus infinity
and GELU to zero, so x needs no limit."""


class TailGelu(torch.nn.Module):
    """GELU by the formula of this file, computed in FP32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tail_gelu(x)


def tail_gelu(x: torch.Tensor) -> torch.Tensor:
    """Return GELU of `x` in the type of `x`; see above."""
    value = x.float()
    size = value.abs()
    *lower, highest = COEFFICIENTS
    power = size * highest
    for index, coefficient in enumerate(reversed(lower)):
        power = (power if index == 0 else power * size) + coefficient
    return (value.relu() - size * power.exp2()).to(x.dtype)
