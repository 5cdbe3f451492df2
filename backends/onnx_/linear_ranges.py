"""Largest inputs of the linear layers of an encoder, computed by PyTorch on the calibration sequences of INT8.

They exist for every family, because layers are found by their class. The ranges of backends/onnx_/ranges.py are at
fixed points of layers with known names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Artifact, Feeds, versions_of
from backends.cache import ArtifactCache
from backends.model.checkpoint import load_encoder, run_encoder
from backends.onnx_.calibration import CalibrationInputs

if TYPE_CHECKING:
    import torch


def linear_ranges(folder: Path, identity: str, calibration: CalibrationInputs, cache: ArtifactCache) -> Artifact:
    """Make a JSON file of the largest absolute input of each linear layer, by the path of its module.

    The result is cached. Padding of the calibration sequences counts, as in the calibration of INT8.

    Args:
        folder, identity: the checkpoint.
        calibration: inputs to find ranges.
    """

    def build(path: Path) -> Mapping[str, object]:
        ranges = largest_inputs(load_encoder(folder), calibration.batches())
        path.write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"linear_layers": len(ranges)}

    key = {"checkpoint": identity, "form": 1, **calibration.key}
    return cache.get("linear-ranges", key, "ranges.json", build, versions_of(("torch", "transformers")))


def largest_inputs(encoder: torch.nn.Module, batches: Sequence[Feeds]) -> dict[str, float]:
    """Return the largest absolute input of each linear layer of `encoder` that `batches` reach. NaN stays NaN."""
    import torch

    largest: dict[str, torch.Tensor] = {}

    def observe(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            highest = inputs[0].abs().max()
            largest[name] = torch.maximum(largest[name], highest) if name in largest else highest

        return hook

    linears = [(name, module) for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
    hooks = [module.register_forward_pre_hook(observe(name)) for name, module in linears]
    with torch.inference_mode():
        for feeds in batches:
            run_encoder(encoder, feeds)
    for hook in hooks:
        hook.remove()
    return {name: value.item() for name, value in largest.items()}
