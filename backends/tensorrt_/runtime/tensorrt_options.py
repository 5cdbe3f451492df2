"""Options of the two TensorRT backends, with their help texts. Needs CPython 3.10 and the standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TypeVar

from backends.config_key import key
from backends.options import BackendOptions, Layout, NamedGpu, Profiles, SharedKeys, Switch
from backends.value_checks import Refused, at_least, between

Products = Enum("Products", ["auto", "convolution", "matmul", "fully_connected", "plugin"])
Gelu = Enum("Gelu", ["auto", "erf", "exported_erf", "ordered_erf", "sigmoid", "tanh", "cubic", "plugin"])
Part = Enum("Part", ["auto", "fp16", "int8"])
Constraints = Enum("Constraints", ["none", "obey"])
Contexts = Enum("Contexts", ["one", "per_profile"])
Engines = Enum("Engines", ["one", "per_shape"])
Rewrite = Enum("Rewrite", ["constant_reshapes", "merged_qkv", "sigmoid_gelu", "cubic_gelu"])
Types = Enum("Types", ["auto", "flags", "graph"])
DynamicShapes = Enum("DynamicShapes", ["auto", "lazy", "eager", "none"])
GraphStrategy = Enum("GraphStrategy", ["suite", "runtime"])
Target = Enum("Target", ["device", "portable", "sm75", "sm80", "sm86", "sm89", "sm120", "sm121"])
Verbosity = Enum("Verbosity", ["none", "layer_names_only", "detailed"])

Options = TypeVar("Options", bound="TensorRTOptions")


@dataclass
class EngineKeys:
    """Builder options of TensorRT: the group trt of the command line; see backends/tensorrt_/build/build.py."""

    min: list[int] = key(
        [],
        "Smallest [batch,sequence] of profiles=dynamic. Empty: batch 1 and sequence 16, or the shortest one if less.",
        in_help=True,
    )
    opt: list[int] = key(
        [],
        "Shape [batch,sequence] that profiles=dynamic is tuned for. Empty: trt.max.",
        in_help=True,
    )
    max: list[int] = key(
        [],
        "Largest [batch,sequence] of profiles=dynamic. Empty: the largest batch and sequence.",
        in_help=True,
    )
    ranges: list[list[int]] = key(
        [],
        "Profiles of profiles=ranges: [batch,sequence,batch,sequence] from the smallest to the largest shape.",
        added_later=True,
        in_help=True,
    )
    contexts: Contexts = key(
        Contexts.one,
        "one execution context that changes its profile, or one for each profile.",
        added_later=True,
        in_help=True,
    )
    engines: Engines = key(
        Engines.one,
        "one engine for all shapes, or one for each shape.",
        added_later=True,
        in_help=True,
    )
    share_engine: bool = key(
        False,
        "Sessions that are open in a process at the same time, as workers of suite=serving, share one engine.",
        added_later=True,
        in_help=True,
    )
    memory_mb: int = key(
        0,
        "Device memory for engines, contexts and buffers in MB. 0: all free memory.",
        added_later=True,
        in_help=True,
    )
    rewrites: list[Rewrite] = key(
        [],
        "Rewrites of the ONNX graph before the build. constant_reshapes, merged_qkv, sigmoid_gelu keep the function; "
        "cubic_gelu changes GELU by up to 4.7e-4.",
        in_help=True,
    )
    workspace_mb: int = key(0, "Builder workspace in MB. 0: TensorRT's default.")
    optimization_level: int = key(
        3,
        "Builder optimization level from 0 to 5.",
        in_help=True,
    )
    aux_streams: int = key(-1, "Auxiliary streams of an engine. -1: TensorRT decides.")
    timing_iterations: int = key(
        0, "Timing runs of each tactic whose average counts. 0: TensorRT's default.", added_later=True
    )
    tactic_heuristic: bool = key(
        False, "TensorRT 8.6: predict tactics instead of timing all of them.", added_later=True
    )
    builder_threads: int = key(
        0, "Most CPU threads of the builder. 0: TensorRT's default, which is 1.", added_later=True
    )
    tactic_sources: list[str] = key(
        [], "Libraries that tactics may come from, such as edge_mask_convolutions. [none]: none. Empty: the default."
    )
    types: Types = key(
        Types.auto, "Source of precisions: flags of the builder (up to TensorRT 10) or casts in the graph (from 11 on)."
    )
    hardware_compatible: bool = key(False, "Build engines that run on other GPU architectures too.")
    version_compatible: bool = key(False, "Build engines that run in later TensorRT releases too.")
    refit: bool = key(False, "Build engines whose weights can be replaced.")
    verbosity: Verbosity = key(Verbosity.detailed, "Detail that the inspector stores about layers.")
    target: Target = key(
        Target.device,
        "TensorRT-RTX: GPUs of the engine. device: the GPU of the cell; smNN: compute capability N.N; portable: all. "
        "With until=build a named target needs no GPU.",
        added_later=True,
        in_help=True,
    )
    dynamic_shapes: DynamicShapes = key(
        DynamicShapes.auto,
        "TensorRT-RTX: kernels for a new shape. lazy: compile them in the background; eager: before the first step; "
        "none: use kernels for any shape. auto: its default.",
        added_later=True,
        in_help=True,
    )
    runtime_cache: bool = key(
        False, "TensorRT-RTX: keep kernels that sessions compile in the cache folder.", added_later=True
    )
    graphs: GraphStrategy = key(
        GraphStrategy.suite,
        "CUDA graphs. suite: as cuda_graph says; runtime: TensorRT-RTX captures and replays them by itself.",
        added_later=True,
    )
    plugin_libraries: list[str] = key([], "Shared libraries of plugins to load.", paths=True)

    def __post_init__(self) -> None:
        between("trt.optimization_level", self.optimization_level, 0, 5)
        at_least("trt.timing_iterations", self.timing_iterations, 0)
        at_least("trt.builder_threads", self.builder_threads, 0)
        at_least("trt.workspace_mb", self.workspace_mb, 0)
        at_least("trt.memory_mb", self.memory_mb, 0)
        at_least("trt.aux_streams", self.aux_streams, -1)
        if self.refit and self.version_compatible:
            raise Refused("TensorRT cannot build an engine that is both refittable and version compatible; choose one")


@dataclass
class PluginKeys:
    """Choices for engines made of TensorRT's BERT plugins: the group plugin of the command line."""

    products: Products = key(
        Products.auto,
        "How weights are multiplied. auto: convolution in INT8, and for packed tokens with cubic GELU; else matmul. "
        "fully_connected exists in TensorRT 8.6 only; plugin uses cuBLASLt's plugin.",
    )
    gelu: Gelu = key(
        Gelu.auto,
        "Formula of GELU. auto: erf in FP32, sigmoid in FP16, cubic in INT8. cubic is another function, off by up to "
        "4.7e-4, and can be fused into the product before it. exported_erf and ordered_erf are erf with its operations "
        "in another order. plugin is the cubic by TensorRT's plugin, in FP16 arithmetic, so it is less exact.",
        in_help=True,
    )
    flat_gelu: Switch = key(
        Switch.auto,
        "Compute GELU on tensors [tokens, features], for which TensorRT compiles and times fewer kernels. auto: on for "
        "packed tokens if GELU is not fused into a convolution.",
        added_later=True,
    )
    attention: Part = key(Part.auto, "Precision of attention with precision=int8. auto: INT8 if there is a kernel.")
    norms: Part = key(Part.auto, "Precision of layer norms with precision=int8. auto: INT8 if there is a kernel.")
    interleaved: bool = key(
        False, "Keep INT8 tensors with 32 channels interleaved from embeddings to output. Hidden size 768 or 1024."
    )
    scale_max: Switch = key(
        Switch.auto,
        "Packed INT8 attention takes the largest score from the calibrated range instead of searching for it. auto: on "
        "if the range is small enough.",
        added_later=True,
    )
    constraints: Constraints = key(
        Constraints.none,
        "obey: products must use INT8. none: TensorRT may use FP16 for a product if that is faster.",
        added_later=True,
        in_help=True,
    )


@dataclass
class TensorRTOptions(EngineKeys, BackendOptions):
    """Options of backend trt. `min`, `opt` and `max` are resolved, as [batch, sequence]."""

    profiles: Profiles = Profiles.per_shape
    keep_fp32: list[str] = key([])

    @classmethod
    def resolved(cls: type[Options], shared: SharedKeys, groups: Mapping[str, object]) -> Options:
        options = super().resolved(shared, groups)
        largest = list(options.max) or [max(shared.batch), max(shared.sequence)]
        options = replace(
            options,
            min=list(options.min) or [1, min(16, *shared.sequence)],
            opt=list(options.opt) or largest,
            max=largest,
            plugin_libraries=[_library(path) for path in options.plugin_libraries],
        )
        _check_dynamic_range(options)
        _check_ranges(options)
        if options.engines is Engines.per_shape and options.profiles is not Profiles.per_shape:
            raise Refused("trt.engines=per_shape builds an engine for each shape, so use profiles=per_shape")
        return options

    def named_gpu(self) -> NamedGpu | None:
        if self.target is Target.device:
            return None
        # A portable engine must suit its oldest GPU, which has compute capability 8.0.
        capability = (8, 0) if self.target is Target.portable else capability_of(self.target)
        return NamedGpu(f"tensorrt-rtx {self.target.name}", capability)

    def has_graphs(self, device_kind: str) -> bool:
        return super().has_graphs(device_kind) and self.graphs is GraphStrategy.suite

    def for_cell(self) -> dict[str, object]:
        """Return the options for a cell. A library is given by its file name and a digest of its content."""
        from backends.cache import digest_of  # imports numpy, which the help of a command does not need

        libraries = [Path(path) for path in self.plugin_libraries]
        named = [f"{path.name} {digest_of(path)[:16]}" for path in libraries]
        return {**super().for_cell(), "plugin_libraries": named}


@dataclass
class PluginOptions(PluginKeys, TensorRTOptions):
    """Options of backend trt_plugin."""

    layout: Layout = Layout.packed
    pad_to_multiple_of: int = key(1, added_later=True)

    @property
    def packed(self) -> bool:
        """Whether tokens are put end to end without padding."""
        return self.layout is Layout.packed


def _check_dynamic_range(options: EngineKeys) -> None:
    for name in ("min", "opt", "max"):
        sizes = getattr(options, name)
        if len(sizes) != 2 or min(sizes) < 1:
            raise Refused(f"trt.{name}={sizes} must be a batch and a sequence length, e.g. trt.{name}=[1,128]")
    for axis, (lower, optimum, upper) in enumerate(zip(options.min, options.opt, options.max, strict=True)):
        if not lower <= optimum <= upper:
            axis_name = ("batch", "sequence")[axis]
            raise Refused(
                f"trt.min, trt.opt and trt.max must not decrease; their {axis_name} is {lower}, {optimum}, {upper}"
            )


def _check_ranges(options: TensorRTOptions) -> None:
    """Check that no range of profiles=ranges is empty and that ranges do not overlap."""
    ranges: Sequence[Sequence[int]] = options.ranges
    if bool(ranges) != (options.profiles is Profiles.ranges):
        raise Refused("profiles=ranges and trt.ranges=[[batch,sequence,batch,sequence],...] need each other; give both")
    for number, ends in enumerate(ranges, 1):
        if len(ends) != 4 or min(ends) < 1:
            raise Refused(f"trt.ranges: number {number} is {list(ends)}, not [batch,sequence,batch,sequence]")
        if ends[0] > ends[2] or ends[1] > ends[3]:
            raise Refused(f"trt.ranges: number {number}, {list(ends)}, is empty: the smallest shape comes first")
        for earlier, earlier_ends in enumerate(ranges[: number - 1], 1):
            corner = [max(ends[axis], earlier_ends[axis]) for axis in (0, 1)]
            if all(corner[axis] <= min(ends[axis + 2], earlier_ends[axis + 2]) for axis in (0, 1)):
                raise Refused(f"trt.ranges: numbers {earlier} and {number} overlap: both have {corner[0]}x{corner[1]}")


def capability_of(target: Target) -> tuple[int, int]:
    """Return the compute capability of a target "smNN"; (0, 0) for the others."""
    digits = target.name.removeprefix("sm")
    return (int(digits[:-1]), int(digits[-1])) if digits.isdecimal() else (0, 0)


def _library(path: str) -> str:
    """Return the absolute path of a shared library: workers run in other folders."""
    if not Path(path).is_file():
        raise Refused(f"trt.plugin_libraries has {path}, which is not a file; give paths of shared libraries")
    return str(Path(path).resolve())
