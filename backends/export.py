"""A checkpoint as an ONNX file: opset 17, int32 inputs, dynamic batch and sequence, checked against transformers.

Attention is traced in its plain form, which onnxruntime's BERT fusion and TensorRT's attention fusion look for.
The mask is -10000 where padded, which FP16 can hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backends import onnx_files
from backends.checkpoint import input_names, load_encoder
from backends.reference_check import compare_export

OPSET = 17
MASK_VALUE = -10000.0

TRIED = 24
"""Tokens of the longest sequence that a new export is checked with; cells check it up to their own longest."""


def export(folder: Path, path: Path) -> Mapping[str, Any]:
    """Write the encoder of the checkpoint in `folder` to `path`; returns the opset and the distance from transformers.

    Raises:
        ArithmeticError: the exported graph, run by onnxruntime, differs from transformers.
    """
    names = input_names(folder)
    encoder = Positional(load_encoder(folder, attention="plain"), names).eval()
    example = {name: torch.ones(2, 16, dtype=torch.int32) for name in names}
    if "token_type_ids" in example:
        example["token_type_ids"].zero_()
    with warnings.catch_warnings():
        # The dynamo exporter writes opset 18 at least; TensorRT 8.6 reads up to 17.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            encoder,
            tuple(example.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(names),
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in (*names, "last_hidden_state")},
        )
    onnx_files.gather(path)
    return {"opset": OPSET, "max_difference_from_transformers": compare_export(folder, path, TRIED)}


class Positional(torch.nn.Module):
    """An encoder that takes its inputs by position, as the tracer needs, with the mask made additive."""

    def __init__(self, encoder: torch.nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.names = names

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(self.names, args, strict=True))
        mask = inputs.pop("attention_mask")[:, None, None, :].to(torch.float32)
        hidden: torch.Tensor = self.encoder(**inputs, attention_mask=(1.0 - mask) * MASK_VALUE).last_hidden_state
        return hidden
