"""Export a checkpoint as an ONNX file: opset 17, int32 inputs, dynamic batch and sequence, checked with transformers.

The plain variant of attention is traced, because the attention fusions of onnxruntime and TensorRT recognize it. The
additive mask is -10000 at padding, which FP16 can represent.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from backends.model.attention import MASK_VALUE
from backends.model.checkpoint import input_names, load_encoder
from backends.model.checkpoint_files import read_config
from backends.model.families import position_offset
from backends.model.heads import Head, head_of
from backends.model.output_head import OutputHead
from backends.model_output import HIDDEN, LAST_HIDDEN, Output
from backends.onnx_ import onnx_files
from backends.onnx_.reference_check import compare_export

OPSET = 17

CHECKED_TOKENS = 24
"""Number of tokens of the longest sequence in the check of a new export. A cell checks it up to its own longest one."""


def export(folder: Path, path: Path, output: Output = LAST_HIDDEN) -> Mapping[str, object]:
    """Write the model of the checkpoint in `folder` to `path`; return the opset and the difference from transformers.

    The graph has one output with the name of its kind, or last_hidden_state. Nodes after the encoder are in "/head".

    Raises:
        ArithmeticError: the exported graph, run by onnxruntime, differs from transformers.
    """
    names = input_names(folder)
    first = position_offset(read_config(folder))
    model = PositionalModel(load_encoder(folder, attention="plain"), names, first, head_of(folder, output)).eval()
    result = "last_hidden_state" if output.kind == HIDDEN else output.kind
    axes = {name: {0: "batch", 1: "sequence"} for name in names}
    axes[result] = {0: "batch", 1: "sequence"} if output.per_token else {0: "batch"}
    example = {name: torch.ones(2, 16, dtype=torch.int32) for name in names}
    if "token_type_ids" in example:
        example["token_type_ids"].zero_()
    with warnings.catch_warnings():
        # The dynamo exporter writes at least opset 18; TensorRT 8.6 reads at most opset 17.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(example.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(names),
            output_names=[result],
            dynamic_axes=axes,
        )
    onnx_files.merge_external_data(path)
    return {"opset": OPSET, "max_difference_from_transformers": compare_export(folder, path, CHECKED_TOKENS, output)}


class PositionalModel(torch.nn.Module):
    """Model with positional inputs, which the tracer needs. It converts the mask to an additive mask.

    A family whose first position is not 0 gets its positions as numbers: transformers counts the tokens before each
    token, for which TensorRT has only a loop. Both agree where padding follows the tokens.
    """

    def __init__(
        self, encoder: torch.nn.Module, names: tuple[str, ...], first_position: int = 0, head: Head | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = None if head is None else OutputHead(head)
        self.names = names
        self.first_position = first_position

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        inputs = dict(zip(self.names, args, strict=True))
        tokens = inputs.pop("attention_mask")
        mask = tokens[:, None, None, :].to(torch.float32)
        if self.first_position:
            inputs["position_ids"] = self.first_position + torch.arange(mask.shape[-1])[None]
        hidden: torch.Tensor = self.encoder(**inputs, attention_mask=(1.0 - mask) * MASK_VALUE).last_hidden_state
        output: torch.Tensor = hidden if self.head is None else self.head(hidden, tokens)
        return output
