"""PyTorch: eager, compiled, and on packed tokens."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backends.config_key import key
from backends.description import HIDDEN_STATES, MARKED_LAYERS, BackendDescription, SourceKind
from backends.options import BackendOptions, Switch

CompileMode = Enum("CompileMode", {"default": "default", "max_autotune": "max-autotune-no-cudagraphs"})
PackedMode = Enum("PackedMode", ["auto", "eager", "default", "max_autotune"])


@dataclass
class EagerOptions(BackendOptions):
    keep_fp32: list[str] = key([], added_later=True)


@dataclass
class TorchKeys:
    """The group `torch` of the command line."""

    dynamic: Switch = key(
        Switch.off,
        "torch_compile, and torch_packed if it compiles: compile for dynamic shapes. off: one specialized graph per "
        "shape.",
    )
    compile_mode: CompileMode = key(
        CompileMode.default, "torch_compile: mode of torch.compile. max_autotune means max-autotune-no-cudagraphs."
    )
    merge_qkv: Switch = key(
        Switch.auto,
        "torch_compile: compute linear layers with the same input, such as query, key and value, as one product. "
        "auto: on for FP8 only.",
    )
    packed_mode: PackedMode = key(
        PackedMode.auto,
        "torch_packed on a GPU: eager, or mode of torch.compile as in torch.compile_mode. auto: FP8 in mode default "
        "for any number of tokens, else eager.",
    )


@dataclass
class CompileOptions(BackendOptions):
    dynamic: Switch = key(Switch.off)
    compile_mode: CompileMode = key(CompileMode.default)
    merge_qkv: Switch = key(Switch.auto, added_later=True)


@dataclass
class PackedOptions(BackendOptions):
    pad_to_multiple_of: int = key(1, added_later=True)
    packed_mode: PackedMode = key(PackedMode.auto, added_later=True)
    dynamic: Switch = key(Switch.off, added_later=True)


NOT_OF_FP8 = "FP8 of PyTorch quantizes the linear layers of a checkpoint, not a graph"
UNUSED_FP8 = dict.fromkeys(("placement", "smooth", "exact_residual"), NOT_OF_FP8)
NOT_OF_TORCHAO = "torchao has one scale for each output channel and 8-bit weights"

BACKENDS = (
    BackendDescription(
        name="torch_eager",
        factory="backends.torch_.pytorch:TorchEager",
        source=SourceKind.checkpoint,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        options=EagerOptions,
        keeps_parts_by=("keep_fp32",),
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
    ),
    BackendDescription(
        name="torch_compile",
        factory="backends.torch_.pytorch:TorchCompile",
        source=SourceKind.checkpoint,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        options=CompileOptions,
        groups={"torch": TorchKeys},
        keeps_parts_by=("quantization.leave_out",),
        unused_quantization=dict.fromkeys(("per_channel", "reduce_range"), NOT_OF_TORCHAO),
        unused_fp8=UNUSED_FP8,
        calibrates=("fp8",),
        prefers_built_shapes=True,
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
    ),
    # On a CPU it runs one sequence at a time, which checks outputs only.
    BackendDescription(
        name="torch_packed",
        factory="backends.torch_.packed:TorchPacked",
        source=SourceKind.onnx,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        options=PackedOptions,
        groups={"torch": TorchKeys},
        keeps_parts_by=("quantization.leave_out",),
        unused_fp8=UNUSED_FP8,
        packs_tokens=True,
    ),
    BackendDescription(
        name="torch_operations",
        factory="backends.torch_.torch_operations:TorchOperations",
        source=SourceKind.none,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        outputs=(),
    ),
)
