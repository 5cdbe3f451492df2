"""A checkpoint as an ONNX file: opset 17, int32 inputs, dynamic batch and sequence, checked against PyTorch.

Attention is traced in its plain form, which onnxruntime's BERT fusion and TensorRT's attention fusion look for.
The mask is -10000 where padded, which FP16 can hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from backends import onnx_files
from backends.checkpoint import input_names, load_encoder, run_encoder

OPSET = 17
MASK_VALUE = -10000.0
TOLERANCE = 1e-4
"""Largest absolute difference from PyTorch in FP32, over hidden states that a LayerNorm keeps near unit size."""


def export(folder: Path, path: Path) -> Mapping[str, Any]:
    """Write the encoder of the checkpoint in `folder` to `path`; returns the opset and the distance from PyTorch.

    Raises:
        ArithmeticError: onnxruntime and PyTorch differ by more than `TOLERANCE` on the exported graph.
    """
    names = input_names(folder)
    encoder = Positional(load_encoder(folder, attention="plain"), names).eval()
    example = {name: torch.ones(2, 16, dtype=torch.int32) for name in names}
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
    return {"opset": OPSET, "max_difference_from_torch": _check(folder, path)}


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


def _check(folder: Path, path: Path) -> float:
    """Largest difference between the ONNX file and PyTorch, at a shape other than the traced one, with padding."""
    reference = load_encoder(folder)
    config: Any = reference.config
    ids = np.random.default_rng(0).integers(5, config.vocab_size, (3, 24)).astype(np.int32)
    mask = np.ones_like(ids)
    mask[1, 9:], ids[1, 9:] = 0, config.pad_token_id or 0
    arrays = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    feeds = {name: arrays[name] for name in input_names(folder)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    with torch.inference_mode():
        wanted = run_encoder(reference, feeds).numpy()
    difference = float(np.abs(found - wanted)[mask.astype(bool)].max())
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"the exported ONNX differs from PyTorch by {difference:.2e} (at most {TOLERANCE:.0e})")
    return difference
