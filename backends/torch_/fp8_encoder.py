"""Convert an FP32 encoder of transformers to FP16 with linear layers in FP8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers.activations import GELUActivation

from backends.model.families import family_of, size_of
from backends.torch_.fp8_gelu import TailGelu
from backends.torch_.fp8_linear import Fp8Linear, fits
from backends.torch_.left_out import left_out
from backends.torch_.merged_linear import PRODUCT, merge_linears, shared_inputs


@dataclass(frozen=True)
class Conversion:
    """Choices of a conversion to FP8.

    Attributes:
        leave_out: name patterns of the ONNX nodes of products that stay in FP16.
        merge: whether layers that read the same input become one product.
        fuse: whether the first half of a feed-forward block becomes one kernel. It needs a GPU.
    """

    leave_out: Sequence[str] = ()
    merge: bool = True
    fuse: bool = False


def convert_to_fp8(
    encoder: torch.nn.Module, ranges: Mapping[str, float], inputs: Mapping[str, torch.Tensor], choices: Conversion
) -> None:
    """Convert an FP32 encoder in place: its linear layers to FP8, all else to FP16.

    Args:
        ranges: largest input of each linear layer, see backends/onnx_/linear_ranges.py.
        inputs: any inputs of the encoder; see `shared_inputs`.

    Raises:
        ValueError: a pattern of `leave_out` matches no module.
        Unsupported: a layer has no scale.
    """
    selected = fp8_layers(encoder, ranges, choices.leave_out)
    if choices.merge:
        merge_linears(encoder, shared_inputs(encoder, inputs, selected))
    replacements: dict[str, torch.nn.Module] = {}
    for name, module in encoder.named_modules():
        layer = name.removesuffix(PRODUCT)
        if isinstance(module, torch.nn.Linear) and layer in selected:
            replacements[name] = Fp8Linear(module.weight.detach(), module.bias, ranges[layer], layer)
        elif isinstance(module, GELUActivation):
            replacements[name] = TailGelu()
    encoder.half()
    if choices.fuse:
        replacements |= _fused_blocks(encoder, replacements)
    for name, module in replacements.items():
        encoder.set_submodule(name, module)


def _fused_blocks(encoder: torch.nn.Module, replacements: Mapping[str, torch.nn.Module]) -> dict[str, torch.nn.Module]:
    """Return modules for feed-forward blocks with two layers in FP8 and GELU between them."""
    from backends.torch_.fp8_feed_forward import Fp8LinearGelu

    config = getattr(encoder, "config").to_dict()  # noqa: B009  nn.Module declares no such attribute
    family, fused = family_of(config), dict[str, torch.nn.Module]()
    if family.layer_names is None or family.gated:
        return {}
    for layer in range(size_of(config, "num_hidden_layers")):
        paths = (family.layer_names.module(role, layer) for role in ("ffn_up", "activation", "ffn_down"))
        up, gelu, down = paths
        first, activation, second = (replacements.get(path) for path in (up, gelu, down))
        if not (isinstance(first, Fp8Linear) and isinstance(activation, TailGelu) and isinstance(second, Fp8Linear)):
            continue
        if first.bias is not None:
            fused |= {up: Fp8LinearGelu(first, second), gelu: torch.nn.Identity()}
    return fused


def fp8_layers(encoder: torch.nn.Module, ranges: Mapping[str, float], leave_out: Sequence[str]) -> list[str]:
    """Return the paths of the linear layers that become FP8.

    Layers stay in FP16 if `leave_out` names them, if the sizes of their weights do not fit, or if calibration does not
    reach them.
    """
    excluded = left_out(encoder, leave_out)
    return [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear) and name in ranges and name not in excluded and fits(module)
    ]
