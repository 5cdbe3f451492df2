"""A checkpoint as an ONNX file: opset 17, int32 inputs, dynamic batch and sequence, checked against PyTorch.

Attention is traced in the plain form that onnxruntime's BERT fusion and TensorRT's attention fusion look for:
MatMul, Div, Add (mask), Softmax, MatMul. The mask is -10000 where padded, which FP16 can hold.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from transformers import AttentionInterface

from backends.base import Artifact, versions_of
from backends.cache import ArtifactCache
from backends.checkpoint import input_names, load_encoder

OPSET = 17
MASK_VALUE = -10000.0
TOLERANCE = 1e-4
"""Largest absolute difference from PyTorch in FP32, over hidden states that a LayerNorm keeps near unit size."""


def export_onnx(folder: Path, weights_sha256: str, cache: ArtifactCache) -> Artifact:
    """The ONNX file of the checkpoint in `folder`, from the cache or exported and checked now.

    Raises:
        ArithmeticError: onnxruntime and PyTorch differ by more than `TOLERANCE` on the exported graph.
    """
    key = {"weights": weights_sha256, "config": (folder / "config.json").read_text(), "opset": OPSET, "form": 1}
    versions = versions_of(("torch", "transformers", "onnx"))
    return cache.get("onnx", key, "model.onnx", lambda path: _export(folder, path), versions)


def _export(folder: Path, path: Path) -> Mapping[str, Any]:
    AttentionInterface.register("plain", plain_attention)
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
    return {"opset": OPSET, "max_difference_from_torch": _check(folder, path)}


def plain_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """softmax(QK^T / sqrt(d) + mask) V, over [batch, heads, sequence, d]; returns [batch, sequence, heads, d]."""
    scores = torch.matmul(query, key.transpose(2, 3)) / float(query.size(-1)) ** 0.5 + attention_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value).transpose(1, 2).contiguous(), None


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
    reference = load_encoder(folder, attention="sdpa")
    generator = np.random.default_rng(0)
    feeds = {
        "input_ids": generator.integers(5, reference.config.vocab_size, (3, 24), dtype=np.int32),  # type: ignore[union-attr]
        "attention_mask": np.ones((3, 24), np.int32),
        "token_type_ids": np.zeros((3, 24), np.int32),
    }
    feeds["attention_mask"][1, 9:] = 0
    feeds["input_ids"][1, 9:] = reference.config.pad_token_id or 0  # type: ignore[union-attr]
    feeds = {name: feeds[name] for name in input_names(folder)}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, feeds)
    with torch.inference_mode():
        wanted = reference(**{k: torch.from_numpy(v) for k, v in feeds.items()}).last_hidden_state.numpy()
    valid = feeds["attention_mask"].astype(bool)
    difference = float(np.abs(found - wanted)[valid].max())
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"the exported ONNX differs from PyTorch by {difference:.2e} (at most {TOLERANCE:.0e})")
    return difference
