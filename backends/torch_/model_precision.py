"""Load a model of transformers and convert it to the precision of a cell."""

from __future__ import annotations

from pathlib import Path

import torch

from backends.base import Artifact, BuildSpec
from backends.json_codec import from_json
from backends.model.checkpoint import input_names, load_encoder
from backends.model.heads import head_of
from backends.model.output_head import ModelWithOutput
from backends.options import Switch
from backends.torch_.description import CompileOptions, EagerOptions
from backends.torch_.dynamic_linear import quantize_int8
from backends.torch_.fp8 import ranges_in
from backends.torch_.fp8_encoder import Conversion, convert_to_fp8
from backends.torch_.fp8_linear import widen_weights
from backends.torch_.keep_fp32 import convert_except
from backends.torch_.marked_modules import MarkedEncoder
from backends.torch_.merged_linear import merge_linears, shared_inputs


def load_model(spec: BuildSpec, artifact: Artifact) -> ModelWithOutput:
    """Return the model of a checkpoint in evaluation mode, on the device and in the precision of `spec`.

    Args:
        artifact: the weights file in the folder of the checkpoint.

    Raises:
        Unsupported: FP8 has no scale for a layer; also as `load_encoder`.
    """
    folder = artifact.path.parent
    encoder = load_encoder(folder)
    merge = spec.options.merge_qkv if isinstance(spec.options, CompileOptions) else Switch.off
    if spec.precision == "fp8":
        # Marked outputs need the values of GELU in FP16.
        fuse = spec.device.kind == "cuda" and "marked" not in artifact.notes
        choices = Conversion(spec.quantization.leave_out, merge is not Switch.off, fuse)
        convert_to_fp8(encoder, ranges_in(artifact), _any_inputs(folder), choices)
    elif merge is Switch.on:
        linears = [name for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)]
        merge_linears(encoder, shared_inputs(encoder, _any_inputs(folder), linears))
    if marked := from_json(tuple[str, ...], artifact.notes.get("marked", ()), "marked"):
        encoder = MarkedEncoder(encoder, marked)
    model = ModelWithOutput(encoder, head_of(folder, spec.output)).eval().to(spec.device.kind)
    _convert(model, spec)
    return model


def _any_inputs(folder: Path) -> dict[str, torch.Tensor]:
    """Return inputs of an encoder: one sequence of two tokens."""
    names = [name for name in input_names(folder) if name != "attention_mask"]
    return {name: torch.zeros(1, 2, dtype=torch.int32) for name in names}


def _convert(model: ModelWithOutput, spec: BuildSpec) -> None:
    """Convert a model to the precision of `spec` in place. An encoder in FP8 is already converted."""
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(spec.precision, torch.float32)
    if isinstance(spec.options, EagerOptions) and spec.options.keep_fp32:
        convert_except(model, dtype, spec.options.keep_fp32)
    elif spec.precision != "fp8":
        model.to(dtype)
    else:
        if model.head is not None:
            model.head.half()
        if spec.device.kind == "cpu":
            widen_weights(model)
    if spec.precision == "int8":
        quantize_int8(model, spec.quantization.leave_out)
