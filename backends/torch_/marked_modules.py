"""Outputs of layers of a PyTorch encoder, concatenated in the place of its last hidden state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch

from backends.model.layer_names import node_of
from backends.onnx_.ranges import named_points

LAST_NODES = ("Add", "LayerNormalization", "Mul_1")
"""Last node of a module in the exporter's graph: of a linear layer, of a norm, and of GELU."""


class MarkedEncoder(torch.nn.Module):
    """An encoder that returns the outputs of its modules at `points`, FP32 [batch, sequence, all features].

    Raises:
        ValueError: a point is not the output of a module.
    """

    def __init__(self, encoder: torch.nn.Module, points: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self._points = points
        self._outputs: dict[str, torch.Tensor] = {}
        nodes = {node_of(name, last): module for name, module in encoder.named_modules() for last in LAST_NODES}
        modules = {point: nodes[node] for node, point in named_points([(node, node) for node in nodes]).items()}
        if missing := set(points) - set(modules):
            raise ValueError(f"no module's output is {', '.join(sorted(missing))}")
        for point in points:
            modules[point].register_forward_hook(self._keep(point))

    def _keep(self, point: str) -> Callable[..., None]:
        def keep(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            self._outputs[point] = output

        return keep

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        self._outputs.clear()
        self.encoder(**inputs)
        concatenated = torch.cat([self._outputs[point].float() for point in self._points], dim=-1)
        return SimpleNamespace(last_hidden_state=concatenated)
