"""ONNX Runtime with its CPU and CUDA execution providers."""

from __future__ import annotations

from dataclasses import dataclass

from backends.config_key import key
from backends.description import HIDDEN_STATES, MARKED_LAYERS, BackendDescription, ExportDescription, SourceKind
from backends.options import BackendOptions, Switch


@dataclass
class OrtOptions(BackendOptions):
    fusion: Switch = key(Switch.auto, "Fuse the graph with ONNX Runtime's BERT optimizer. auto: on a GPU only.")


BACKENDS = (
    BackendDescription(
        name="ort",
        factory="backends.ort_.ort:OnnxRuntime",
        source=SourceKind.onnx,
        devices=("cpu", "cuda"),
        time_limit_s=1200.0,
        options=OrtOptions,
        groups={"ort": OrtOptions},
        keeps_parts_by=("quantization.leave_out",),
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
        export=ExportDescription(
            "backends.ort_.deploy_onnx:deploy_onnx",
            "backends.ort_.run_onnx",
            triton=("onnxruntime", "onnxruntime_onnx"),
        ),
    ),
)
