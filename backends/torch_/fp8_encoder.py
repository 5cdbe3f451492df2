"""Convert an FP32 encoder of transformers to FP16 with linear layers in FP8."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from transformers.activations import GELUActivation

from backends.model.layer_names import node_of
from backends.onnx_.onnx_casts import matching_names
from backends.torch_.fp8_linear import Fp8Linear, SigmoidGelu, fits
from backends.torch_.merged_linear import PRODUCT, merge_linears, shared_inputs


def convert_to_fp8(
    encoder: torch.nn.Module,
    ranges: Mapping[str, float],
    inputs: Mapping[str, torch.Tensor],
    leave_out: Sequence[str],
    merge: bool,
) -> None:
    """Convert an FP32 encoder in place: its linear layers to FP8, all else to FP16.

    Args:
        ranges: largest input of each linear layer, see backends/onnx_/linear_ranges.py.
        inputs: any inputs of the encoder; see `shared_inputs`.
        leave_out: name patterns of the ONNX nodes of products that stay in FP16.
        merge: whether layers that read the same input become one product.

    Raises:
        ValueError: a pattern of `leave_out` matches no module.
        Unsupported: a layer has no scale.
    """
    selected = fp8_layers(encoder, ranges, leave_out)
    if merge:
        merge_linears(encoder, shared_inputs(encoder, inputs, selected))
    replacements: dict[str, torch.nn.Module] = {}
    for name, module in encoder.named_modules():
        layer = name.removesuffix(PRODUCT)
        if isinstance(module, torch.nn.Linear) and layer in selected:
            replacements[name] = Fp8Linear(module.weight.detach(), module.bias, ranges[layer], layer)
        elif isinstance(module, GELUActivation):
            replacements[name] = SigmoidGelu()
    encoder.half()
    for name, module in replacements.items():
        encoder.set_submodule(name, module)


def fp8_layers(encoder: torch.nn.Module, ranges: Mapping[str, float], leave_out: Sequence[str]) -> list[str]:
    """Return the paths of the linear layers that become FP8.

    Layers stay in FP16 if `leave_out` names them, if the sizes of their weights do not fit, or if calibration does not
    reach them.
    """
    leaves = [name for name, module in encoder.named_modules() if name and not any(module.children())]
    nodes = {f"/{node_of(name, 'MatMul')}": name for name in leaves}
    excluded = {nodes[node] for node in matching_names(list(nodes), leave_out)}
    return [
        name
        for name, module in encoder.named_modules()
        if isinstance(module, torch.nn.Linear) and name in ranges and name not in excluded and fits(module)
    ]
