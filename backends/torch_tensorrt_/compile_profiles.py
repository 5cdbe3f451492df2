"""Compile a model with Torch-TensorRT, one program for each optimization profile.

Needs torch_tensorrt 2.13 or newer, whose engines take their types from the model. The tests compare the arguments with
the signatures of 2.13; the module has not run on a GPU.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from backends.base import Artifact, BuildSpec, Shape
from backends.model.checkpoint import input_names
from backends.profiles import Profile
from backends.torch_.model_precision import load_model
from backends.torch_tensorrt_.description import TorchTensorRTOptions

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TENSORRT, PYTORCH = "TensorRT", "PyTorch"
"""Names of the libraries that run operators, in the notes of an artifact."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""Order of the inputs of a program."""

ENGINE_PREFIX = "_run_on_acc"
"""Start of the names of the parts of a partitioned model that become engines."""

AXES = ("batch", "sequence")


class PaddedModel(torch.nn.Module):
    """Model whose inputs are int32 arrays [batch, sequence], with the attention mask always given."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        mask = attention_mask[:, None, None, :].bool()
        output: torch.Tensor = self.model(input_ids=input_ids, attention_mask=mask, **types)
        return output


@dataclass(frozen=True)
class ModelToCompile:
    """A model, the number of its inputs, and its settings."""

    model: PaddedModel
    inputs: int
    spec: BuildSpec
    timings: Path


def model_to_compile(spec: BuildSpec, weights: Artifact, timings: Path) -> ModelToCompile:
    """Load the model of a checkpoint on the device and in the precision of `spec`.

    Args:
        weights: the weights file in the folder of the checkpoint.
        timings: file for the timings of tactics.
    """
    names = input_names(weights.path.parent)
    return ModelToCompile(PaddedModel(load_model(spec, weights)).eval(), len(names), spec, timings)


def compile_profile(source: ModelToCompile, profile: Profile, path: Path) -> dict[str, int]:
    """Compile the model for one profile, and write the program to `path`.

    Returns:
        The number of operators by the library that runs them.
    """
    import torch_tensorrt

    example = tuple(example_inputs(source, profile))
    dynamic = dynamic_axes(source.inputs, profile)
    inputs = [_input(profile) for _ in example]
    settings = compile_settings(source)

    def exported() -> ExportedProgram:
        """Return a new program, because a compilation changes it."""
        with torch.no_grad():
            return torch.export.export(source.model, example, dynamic_shapes=dynamic)

    # A dry run partitions the model and builds no engine: its parts still have their operators.
    partitioned = torch_tensorrt.dynamo.compile(exported(), arg_inputs=inputs, dryrun=True, **settings)
    operators = operators_by_library(partitioned)
    compiled = torch_tensorrt.dynamo.compile(exported(), arg_inputs=inputs, **settings)
    torch_tensorrt.save(
        compiled, str(path), output_format="exported_program", arg_inputs=list(example), dynamic_shapes=dynamic
    )
    return operators


def compile_settings(source: ModelToCompile) -> dict[str, object]:
    """Return the settings of torch_tensorrt.dynamo.compile."""
    spec, options = source.spec, source.spec.options_as(TorchTensorRTOptions)
    return {
        "device": torch.device(spec.device.kind, spec.device.index),
        "disable_tf32": spec.precision != "tf32",
        "optimization_level": options.optimization_level,
        "workspace_size": options.workspace_mb << 20,
        "max_aux_streams": None if options.aux_streams < 0 else options.aux_streams,
        "min_block_size": options.min_block_size,
        "hardware_compatible": options.hardware_compatible,
        "timing_cache_path": str(source.timings),
        # The mask of an encoder is not causal, which is the default of Torch-TensorRT.
        "attn_bias_is_causal": False,
    }


def example_inputs(source: ModelToCompile, profile: Profile) -> list[torch.Tensor]:
    """Return inputs of the largest shape of a profile. An axis of size 1 would become fixed in the exported program."""
    sizes = (profile.max.batch, profile.max.sequence)
    device = torch.device(source.spec.device.kind, source.spec.device.index)
    values = [torch.ones(sizes, dtype=torch.int32, device=device) for _ in range(source.inputs)]
    return [value * 0 if name == "token_type_ids" else value for name, value in zip(INPUTS, values, strict=False)]


def dynamic_axes(inputs: int, profile: Profile) -> dict[str, dict[int, object]] | None:
    """Return the axes that change within a profile, by input; None if all are fixed. Inputs share their axes."""
    ranges = [(getattr(profile.min, name), getattr(profile.max, name)) for name in AXES]
    axes: dict[int, object] = {
        axis: torch.export.Dim(AXES[axis], min=low, max=high) for axis, (low, high) in enumerate(ranges) if low < high
    }
    return {name: dict(axes) for name in INPUTS[:inputs]} if axes else None


def _input(profile: Profile) -> object:
    """Return the torch_tensorrt.Input of one int32 array."""
    import torch_tensorrt

    if profile.min == profile.max:
        return torch_tensorrt.Input(shape=_sizes(profile.max), dtype=torch.int32)
    return torch_tensorrt.Input(
        min_shape=_sizes(profile.min),
        opt_shape=_sizes(profile.opt),
        max_shape=_sizes(profile.max),
        dtype=torch.int32,
    )


def _sizes(shape: Shape) -> tuple[int, int]:
    return shape.batch, shape.sequence


def operators_by_library(partitioned: torch.fx.GraphModule) -> dict[str, int]:
    """Return the number of operators in the parts that become engines, and outside of them."""
    counts: Counter[str] = Counter()
    for name, part in partitioned.named_children():
        if isinstance(part, torch.fx.GraphModule):
            counts[TENSORRT if name.startswith(ENGINE_PREFIX) else PYTORCH] += _operators(part)
    counts[PYTORCH] += _operators(partitioned)
    return {name: count for name, count in counts.items() if count}


def _operators(part: torch.fx.GraphModule) -> int:
    nodes = [node for node in part.graph.nodes if node.op in ("call_function", "call_method")]
    return sum(node.target is not operator.getitem for node in nodes)


def merged_counts(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Return the counts of the profile that leaves most operators to PyTorch."""
    most = max(range(len(counts)), key=lambda number: counts[number].get(PYTORCH, 0))
    return dict(counts[most])


def load_program(path: Path) -> torch.nn.Module:
    """Load a program that `compile_profile` wrote."""
    import torch_tensorrt

    program: ExportedProgram = torch_tensorrt.load(str(path))
    module: torch.nn.Module = program.module()
    return module
