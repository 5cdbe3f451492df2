"""FP8 of the PyTorch backends: requirements, and the ranges of calibration. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping

from backends.base import Artifact, Device, Source, Unsupported
from backends.json_codec import from_json
from backends.torch_.gpu_precisions import missing_capability

INPUT_RANGES = "input_ranges"
"""Note of an artifact: the largest input of each linear layer, see backends/onnx_/linear_ranges.py."""


def check_fp8(device: Device) -> None:
    """Raise Unsupported for a GPU without FP8. A CPU computes products of the same numbers in FP32."""
    if device.kind == "cuda" and (reason := missing_capability(device, "fp8")):
        raise Unsupported(f"{reason}; use precision=fp16 or int8")


def ranges_of(source: Source) -> dict[str, float]:
    """Return the largest inputs of linear layers in a source."""
    assert source.ranges is not None
    return from_json(dict[str, float], json.loads(source.ranges.path.read_text(encoding="utf-8")))


def ranges_in(artifact: Artifact) -> Mapping[str, float]:
    """Return the ranges in the notes of an artifact."""
    return from_json(Mapping[str, float], artifact.notes[INPUT_RANGES], INPUT_RANGES)
