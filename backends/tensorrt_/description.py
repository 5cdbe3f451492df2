"""TensorRT through its ONNX parser, and through its BERT plugins (padded or packed tokens)."""

from __future__ import annotations

from dataclasses import replace

from backends.description import (
    HIDDEN_STATES,
    MARKED_LAYERS,
    BackendDescription,
    ExportDescription,
    Interpreter,
    SourceKind,
)
from backends.quantization_options import Placement
from backends.tensorrt_.runtime.tensorrt_options import EngineKeys, PluginKeys, PluginOptions, TensorRTOptions

INTERPRETER = Interpreter("trt", "Python with numpy, TensorRT and cuda-python, 3.10 or newer. Empty: interpreter.main.")

NO_ZERO_POINTS = {"activation=uint8": "TensorRT reads no zero points; use auto"}

NOT_OF_PLUGINS = "an engine of plugins does not use it; see plugin.attention, plugin.norms, quantization.leave_out"

BUILD_SWEEP = {
    "optimization_level": (0, 1, 2, 3, 4, 5),
    "workspace_mb": (0, 16, 1024),
    "tactic_sources": ([], ["none"], ["edge_mask_convolutions", "jit_convolutions"]),
    "aux_streams": (-1, 0, 1, 4),
    "timing_iterations": (0, 8),
    "tactic_heuristic": (False, True),
    "builder_threads": (0, 4),
}

EXPORT = ExportDescription(
    "backends.tensorrt_.deploy_plan:deploy_plan",
    "backends.tensorrt_.run_plan",
    ("engine", "model.plan"),
    ("tensorrt", "tensorrt_plan"),
)

BACKENDS = (
    BackendDescription(
        name="trt",
        factory="backends.tensorrt_.onnx_backend:TensorRT",
        source=SourceKind.onnx,
        devices=("cuda",),
        time_limit_s=3600.0,
        interpreter=INTERPRETER,
        options=TensorRTOptions,
        groups={"trt": EngineKeys},
        placement=Placement.all_but_ffn_residual,
        keeps_parts_by=("keep_fp32", "quantization.leave_out"),
        unused_quantization=NO_ZERO_POINTS,
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
        builds_engine=True,
        starts_builder=True,
        limits_builds=True,
        prefers_built_shapes=True,
        build_sweep=BUILD_SWEEP,
        export=EXPORT,
        tools="backends.tensorrt_.equivalent_commands:onnx_commands",
    ),
    BackendDescription(
        name="trt_plugin",
        factory="backends.tensorrt_.plugin_backend:TensorRTPlugin",
        source=SourceKind.onnx,
        devices=("cuda",),
        time_limit_s=3600.0,
        interpreter=INTERPRETER,
        options=PluginOptions,
        groups={"trt": EngineKeys, "plugin": PluginKeys},
        placement=Placement.auto,
        keeps_parts_by=("quantization.leave_out",),
        packs_tokens=True,
        chooses_int8=True,
        unused_quantization={
            **dict.fromkeys(("placement", "per_channel", "reduce_range"), NOT_OF_PLUGINS),
            **NO_ZERO_POINTS,
            "exact_residual": "norms of plugins read the residual without quantization; see plugin.norms",
        },
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
        builds_engine=True,
        starts_builder=True,
        limits_builds=True,
        prefers_built_shapes=True,
        build_sweep=BUILD_SWEEP,
        export=replace(EXPORT, triton=None),  # its inputs are packed tokens
        tools="backends.tensorrt_.equivalent_commands:no_commands",
    ),
)
