"""Enumerations: the choices of configuration keys that allow only a few values."""

from __future__ import annotations

from enum import Enum

Until = Enum("Until", ["export", "build", "measure"])
Precision = Enum("Precision", ["fp32", "tf32", "fp16", "bf16", "fp8", "int8"])
DeviceKind = Enum("DeviceKind", ["auto", "cpu", "cuda"])
Weights = Enum("Weights", ["trained", "random"])
SourceKind = Enum("SourceKind", ["none", "checkpoint", "onnx"])
Distribution = Enum("Distribution", ["full", "uniform", "texts", "file", "histogram", "lognormal"])
TokenKind = Enum("TokenKind", ["auto", "text", "random"])
Switch = Enum("Switch", ["auto", "on", "off"])
Activation = Enum("Activation", ["auto", "int8", "uint8"])
TaskKind = Enum("TaskKind", ["fidelity", "stsb", "banking77", "sequence_classification", "question_answering"])
Metric = Enum("Metric", ["accuracy", "f1", "matthews"])
LabelReading = Enum("LabelReading", ["auto", "names", "places"])
Method = Enum("Method", ["minmax", "entropy", "percentile", "search"])
Scheme = Enum("Scheme", ["explicit", "implicit"])
Placement = Enum("Placement", ["auto", "all", "all_but_ffn_residual", "ffn", "gemm", "attention"])
Layout = Enum("Layout", ["packed", "fixed"])
Products = Enum("Products", ["auto", "convolution", "matmul", "fully_connected", "plugin"])
Gelu = Enum("Gelu", ["auto", "erf", "sigmoid", "tanh", "cubic"])
Part = Enum("Part", ["auto", "fp16", "int8"])
Constraints = Enum("Constraints", ["none", "obey"])
Profiles = Enum("Profiles", ["dynamic", "per_shape", "buckets", "ranges"])
Contexts = Enum("Contexts", ["one", "per_profile"])
Engines = Enum("Engines", ["one", "per_shape"])
Rewrite = Enum("Rewrite", ["constant_reshapes", "merged_qkv", "sigmoid_gelu", "cubic_gelu"])
Types = Enum("Types", ["auto", "flags", "graph"])
Verbosity = Enum("Verbosity", ["none", "layer_names_only", "detailed"])
CompileMode = Enum("CompileMode", {"default": "default", "max_autotune": "max-autotune-no-cudagraphs"})
Behaviour = Enum(
    "Behaviour", ["ok", "raise", "abort", "hang", "exit", "nonfinite", "garbage", "unsupported", "unavailable"]
)
