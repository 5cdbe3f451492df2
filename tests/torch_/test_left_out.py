"""Layers that quantization.leave_out names stay in floating point."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backends.model.checkpoint import load_encoder
from backends.model.output_head import ModelWithOutput
from backends.torch_.dynamic_linear import quantize_int8
from backends.torch_.left_out import left_out

Tiny = Callable[[str], tuple[Path, str]]


def test_patterns_name_modules_as_nodes_of_their_products(tiny: Tiny) -> None:
    encoder = load_encoder(tiny("bert")[0])
    assert left_out(encoder, []) == set()
    assert left_out(encoder, ["/encoder/layer.1/output/dense/MatMul"]) == {"encoder.layer.1.output.dense"}
    assert {"encoder.layer.0.attention.self.query", "encoder.layer.0.attention.output.dense"} < left_out(
        encoder, ["*/layer.0/attention/*"]
    )
    with pytest.raises(ValueError, match="no/such"):
        left_out(encoder, ["*/layer.0/attention/*", "*/no/such/*"])


@pytest.mark.filterwarnings("ignore")  # torchao warns about torch's own deprecated functions
def test_dynamic_int8_leaves_layers_out(tiny: Tiny) -> None:
    model = ModelWithOutput(load_encoder(tiny("bert")[0]), None)
    quantize_int8(model, ["*/layer.0/attention/*", "*/layer.1/output/*"])
    linears = {name: module for name, module in model.encoder.named_modules() if isinstance(module, torch.nn.Linear)}
    floating = {name for name, module in linears.items() if type(module.weight) is torch.nn.Parameter}
    assert len(linears) == 12
    assert floating == left_out(model.encoder, ["*/layer.0/attention/*", "*/layer.1/output/*"]) & set(linears)
    assert len(floating) == 5
