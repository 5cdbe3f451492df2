"""The first half of a feed-forward block in FP8 as one kernel, in the place of two modules of transformers."""

from __future__ import annotations

import torch

from backends.torch_.fp8_linear import Fp8Linear
from backends.torch_.fp8_products import linear_gelu


class Fp8LinearGelu(torch.nn.Module):
    """A linear layer and GELU, with an output in E4M3 that is rounded for the layer after it."""

    def __init__(self, up: Fp8Linear, down: Fp8Linear) -> None:
        """
        Args:
            up: the layer, with a bias.
            down: the layer that reads the output.
        """
        super().__init__()
        self.up = up
        self.inverse = torch.nn.Buffer(down.inverse.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_gelu(self.up.rounded(x), self.up, self.inverse).reshape(*x.shape[:-1], -1)
