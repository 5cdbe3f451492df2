"""Layers that the patterns of quantization.leave_out name in a model of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from backends.model.layer_names import node_of
from backends.onnx_.onnx_casts import matching_names


def left_out(encoder: torch.nn.Module, patterns: Sequence[str]) -> set[str]:
    """Return the paths of the modules that the patterns name.

    A module is named like the node of its product: layer.0.output.dense is /layer.0/output/dense/MatMul.

    Raises:
        ValueError: a pattern matches no module.
    """
    leaves = [name for name, module in encoder.named_modules() if name and not any(module.children())]
    nodes = {f"/{node_of(name, 'MatMul')}": name for name in leaves}
    return {nodes[node] for node in matching_names(list(nodes), patterns)}
