"""Outputs of layers of a PyTorch encoder, set beside one another in the place of its last hidden state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from backends.ranges import named_points

LAST = ("Add", "LayerNormalization", "Mul_1")
"""The last node that a module of the exporter's graph may end in: a linear layer, a norm, GELU."""


class Marked(torch.nn.Module):
    """Runs `encoder`; what it gives is the outputs of the modules at `points`, FP32 [batch, sequence, all features].

    Raises:
        ValueError: a point is no module's output.
    """

    def __init__(self, encoder: torch.nn.Module, points: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self._points = points
        self._seen: dict[str, torch.Tensor] = {}
        nodes = {f"{_path(name)}/{last}": module for name, module in encoder.named_modules() for last in LAST}
        modules = {point: nodes[node] for node, point in named_points([(node, node) for node in nodes]).items()}
        if missing := set(points) - set(modules):
            raise ValueError(f"no module's output is {', '.join(sorted(missing))}")
        for point in points:
            modules[point].register_forward_hook(self._keep(point))

    def _keep(self, point: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
            self._seen[point] = output

        return keep

    def forward(self, **inputs: Any) -> SimpleNamespace:
        self._seen.clear()
        self.encoder(**inputs)
        together = torch.cat([self._seen[point].float() for point in self._points], dim=-1)
        return SimpleNamespace(last_hidden_state=together)


def _path(module: str) -> str:
    """What the exporter calls a module: encoder.layer.0.output is /encoder/layer.0/output."""
    return "/" + module.replace(".", "/").replace("/layer/", "/layer.")
