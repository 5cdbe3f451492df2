"""Options of single backends with their help texts. They are parts of the schema in suites/schema/config.py."""

from __future__ import annotations

from dataclasses import dataclass

from suites.schema.config_key import key
from suites.schema.enums import (
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
    """Behaviour and costs of the null backend, which runs no model; see backends/null.py."""

    behaviour: Behaviour = key(Behaviour.ok, "Outcome that the null backend produces.")
    step_ms: float = key(1.0, "Host time of a step.")
    gpu_ms: float = key(0.0, "Device time of a step on a simulated GPU. 0: no simulated GPU.")
    copy_ms: float = key(0.0, "Time to copy the inputs.")
    shape_ms: float = key(0.0, "Host time to prepare another shape.")
    profile_ms: float = key(0.0, "Extra host time to prepare a shape of another profile.")
    first_ms: float = key(0.0, "Extra host time of the first step after a change of shape.")
    first_gpu_ms: float = key(0.0, "Extra device time of the first step after a change of shape.")
    cold_ms: float = key(0.0, "Extra host time of the first step of a shape in a process.")
    capture_ms: float = key(0.0, "Host time to capture a CUDA graph.")
    other: dict[str, float] = key(
        {}, "Costs of one shape or of one ordered pair of shapes, such as {shape_ms 1x16 2x16: 0.5}."
    )
    profile_of: dict[str, int] = key({}, "Profile number of a shape, such as {2x16: 1}. Other shapes have profile 0.")
    process_factors: list[float] = key([], "Factors on all costs, one for each process in turn.")


@dataclass
class TorchConfig:
    dynamic: Switch = key(
        Switch.off, "torch_compile: compile for dynamic shapes. off: one specialized graph per shape."
    )
    compile_mode: CompileMode = key(
        CompileMode.default, "torch_compile: mode of torch.compile. max_autotune means max-autotune-no-cudagraphs."
    )


@dataclass
class OrtConfig:
    fusion: Switch = key(Switch.auto, "Fuse the graph with ONNX Runtime's BERT optimizer. auto: on a GPU only.")


@dataclass
class TrtConfig:
    """Builder options of TensorRT; see backends/tensorrt_/build/build.py."""

    min: list[int] = key(
        [],
        "Smallest [batch,sequence] of profiles=dynamic. Empty: batch 1 and sequence 16, or the shortest one if less.",
    )
    opt: list[int] = key([], "Shape [batch,sequence] that profiles=dynamic is tuned for. Empty: trt.max.")
    max: list[int] = key([], "Largest [batch,sequence] of profiles=dynamic. Empty: the largest batch and sequence.")
    ranges: list[list[int]] = key(
        [], "Profiles of profiles=ranges: [batch,sequence,batch,sequence] from the smallest to the largest shape."
    )
    contexts: Contexts = key(Contexts.one, "one execution context that changes its profile, or one for each profile.")
    engines: Engines = key(Engines.one, "one engine for all shapes, or one for each shape.")
    memory_mb: int = key(0, "Device memory for engines, contexts and buffers in MB. 0: all free memory.")
    rewrites: list[Rewrite] = key(
        [],
        "Rewrites of the ONNX graph before the build. constant_reshapes, merged_qkv, sigmoid_gelu keep the function; "
        "cubic_gelu changes GELU by up to 4.7e-4.",
    )
    workspace_mb: int = key(0, "Builder workspace in MB. 0: TensorRT's default.")
    optimization_level: int = key(3, "Builder optimization level from 0 to 5.")
    aux_streams: int = key(-1, "Auxiliary streams of an engine. -1: TensorRT decides.")
    timing_iterations: int = key(0, "Timing runs of each tactic whose average counts. 0: TensorRT's default.")
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
    plugin_libraries: list[str] = key([], "Shared libraries of plugins to load.")


@dataclass
class PluginConfig:
    """Choices for engines made of TensorRT's BERT plugins; see backends/tensorrt_/plugins/plugin_network.py."""

    products: Products = key(
        Products.auto,
        "How weights are multiplied. auto: convolution in INT8, and for packed tokens with cubic GELU; else matmul. "
        "fully_connected exists in TensorRT 8.6 only; plugin uses cuBLASLt's plugin.",
    )
    gelu: Gelu = key(
        Gelu.auto,
        "Formula of GELU. auto: erf in FP32, sigmoid in FP16, cubic in INT8. cubic is another function, off by up to "
        "4.7e-4, and can be fused into the product before it.",
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
    )
    constraints: Constraints = key(
        Constraints.none, "obey: products must use INT8. none: TensorRT may use FP16 for a product if that is faster."
    )
