"""What each backend leaves open: its part of the schemas in suites/config.py."""

from __future__ import annotations

from dataclasses import dataclass, field

from suites.choices import (
    Behaviour,
    CompileMode,
    Constraints,
    Contexts,
    Engines,
    Gelu,
    Part,
    Products,
    Rewrite,
    Switch,
    Types,
    Verbosity,
)


@dataclass
class NullConfig:
    """What the null backend does, and what each part of it costs; see backends/null.py."""

    behaviour: Behaviour = Behaviour.ok
    step_ms: float = 1.0
    gpu_ms: float = 0.0
    copy_ms: float = 0.0
    shape_ms: float = 0.0
    profile_ms: float = 0.0
    first_ms: float = 0.0
    first_gpu_ms: float = 0.0
    cold_ms: float = 0.0
    capture_ms: float = 0.0
    other: dict[str, float] = field(default_factory=dict)
    profile_of: dict[str, int] = field(default_factory=dict)
    process_factors: list[float] = field(default_factory=list)


@dataclass
class TorchConfig:
    dynamic: Switch = Switch.off
    compile_mode: CompileMode = CompileMode.default


@dataclass
class OrtConfig:
    fusion: Switch = Switch.auto


@dataclass
class TrtConfig:
    """How TensorRT builds; see backends/tensorrt_/build.py. An empty list leaves the choice to TensorRT.

    `min`, `opt` and `max` are [batch, sequence] of the dynamic profile, by default 1 x 16 (or the smallest shape
    asked for), the largest shape, and the largest shape. `types` says where precisions come from: from builder flags,
    where a release has them, or from casts in the ONNX file. `workspace_mb` 0, `aux_streams` -1 and
    `timing_iterations` 0 (how often a tactic is timed, for the average) are TensorRT's own. `ranges` are the
    profiles of profiles=ranges, each [batch, sequence, batch, sequence] from the smallest to the largest shape.
    `contexts`: one that changes its profile, or one for each; `engines`: one, or one for each shape. `memory_mb`:
    device memory that plans, contexts and buffers may take; 0 is what is free.
    """

    min: list[int] = field(default_factory=list)
    opt: list[int] = field(default_factory=list)
    max: list[int] = field(default_factory=list)
    ranges: list[list[int]] = field(default_factory=list)
    contexts: Contexts = Contexts.one
    engines: Engines = Engines.one
    memory_mb: int = 0
    rewrites: list[Rewrite] = field(default_factory=list)
    workspace_mb: int = 0
    optimization_level: int = 3
    aux_streams: int = -1
    timing_iterations: int = 0
    tactic_sources: list[str] = field(default_factory=list)
    types: Types = Types.auto
    hardware_compatible: bool = False
    version_compatible: bool = False
    refit: bool = False
    verbosity: Verbosity = Verbosity.detailed
    plugin_libraries: list[str] = field(default_factory=list)


@dataclass
class PluginConfig:
    """What of an engine of plugins can be chosen; see backends/tensorrt_/plugin_network.py.

    `products`: how weights are multiplied; `auto` is by convolution in INT8, and where tokens are packed and GELU is
    the cubic, else by matrix product; `fully_connected` is a layer of TensorRT 8.6.
    `gelu`: as backends/gelu.py has it; `cubic` is another function, off by up to 4.7e-4. `auto` is the fastest that is
    within what the precision rounds by: erf in FP32, a sigmoid in FP16, which rounds as much, and `cubic` in INT8,
    which rounds by a hundred times as much.
    `attention` and `norms`: what precision=int8 makes of them, `auto` INT8 where there are kernels; other precisions
    make their own. `interleaved`: INT8 tensors with 32 channels beside one another, from the embeddings to the output.
    `scale_max`: whether packed INT8 attention takes the largest score from the range instead of looking for it; `auto`
    where the range is small enough. `constraints`: whether products must be of the precision (`obey`), or TensorRT
    may multiply in FP16 what has an INT8 range where that is faster (`none`).
    """

    products: Products = Products.auto
    gelu: Gelu = Gelu.auto
    attention: Part = Part.auto
    norms: Part = Part.auto
    interleaved: bool = False
    scale_max: Switch = Switch.auto
    constraints: Constraints = Constraints.none
