"""OpenVINO on CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from backends.config_key import key
from backends.description import HIDDEN_STATES, MARKED_LAYERS, BackendDescription, ExportDescription, SourceKind
from backends.options import BackendOptions

FloatType = Enum("FloatType", ["auto", "fp32", "bf16"])


@dataclass
class OpenVinoOptions(BackendOptions):
    float_type: FloatType = key(
        FloatType.auto,
        "Type of the operations that INT8 leaves in floating point. auto: BF16 if the CPU computes it, as OpenVINO "
        "chooses itself, else FP32.",
        added_later=True,
    )


BACKENDS = (
    BackendDescription(
        name="openvino",
        factory="backends.openvino_.openvino_backend:OpenVino",
        source=SourceKind.onnx,
        devices=("cpu",),
        time_limit_s=1200.0,
        options=OpenVinoOptions,
        groups={"openvino": OpenVinoOptions},
        keeps_parts_by=("quantization.leave_out",),
        outputs=(HIDDEN_STATES, MARKED_LAYERS),
        export=ExportDescription(
            "backends.openvino_.deploy_openvino:deploy_openvino",
            "backends.openvino_.run_openvino",
            triton=("openvino", ""),
        ),
    ),
)
