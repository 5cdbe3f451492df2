"""Activation ranges of an encoder at the points where INT8 plugins round.

onnxruntime's calibrators compute them: they run calibration inputs through the FP32 ONNX file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.model.families import node_at, point_at
from backends.model.layer_names import POINTS, PROJECTION
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import ENTROPY_BINS, CalibrationInputs, collect_ranges, limited_to, private_copy
from backends.onnx_.onnx_casts import matching_names
from backends.onnx_.quantize import tensor_ranges
from backends.quantization_options import QuantizationOptions

if TYPE_CHECKING:
    import onnx
    from onnxruntime.quantization.calibrate import CalibraterBase

PLUGIN_OPERATIONS = {
    "qkv": ("query", "key", "value"),
    "attention": ("scores", "context"),
    "attended": ("attention_output",),
    "up": ("ffn_up",),
    "down": ("ffn_down",),
}
"""INT8 operations of a plugin network, each with the graph nodes (NODES of backends/model/layer_names.py) that it
replaces."""


def activation_ranges(
    source: Artifact, options: QuantizationOptions, calibration: CalibrationInputs, cache: ArtifactCache
) -> Artifact:
    """Make a JSON file of the largest absolute value at each point, "embeddings" or "<layer>/<point>".

    The note `left` of the artifact lists the operations that must not use INT8, "<layer>/<name from COMPUTED>".

    Args:
        options: uses `method`, which is not search, `percentile` and `leave_out`. Attention probabilities always use
            minmax, because the few large ones decide the result of attention, and entropy cuts them at 0.13.
        calibration: inputs to find ranges, or learned ranges.

    Raises:
        ValueError: a pattern of `leave_out` matches no node.
    """

    method, percentile, leave_out = options.method.name, options.percentile, options.leave_out

    def build(path: Path) -> Mapping[str, object]:
        ranges = _collect(source.path, method, percentile, calibration.batches(), calibration.trained)
        path.write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"left": _excluded_operations(source.path, leave_out)}

    everything = {
        "source": source.sha256,
        "method": method,
        "percentile": percentile,
        "form": 5,
        **({"trained": dict(calibration.trained)} if calibration.trained else {}),
        **({"leave_out": list(leave_out)} if leave_out else {}),
        **calibration.key,
    }
    return cache.get("ranges", everything, "ranges.json", build, versions_of(("onnxruntime-gpu", "onnxruntime")))


def _collect(
    source: Path, method: str, percentile: float, batches: Sequence[Mapping[str, Array]], trained: Mapping[str, float]
) -> dict[str, float]:
    from onnxruntime.quantization import calibrate

    graph = onnx_files.graph_of(source)
    points = points_of([(node.name, node.output[0]) for node in graph.node])
    calibrators: dict[str, tuple[type[CalibraterBase], dict[str, float]]] = {
        "minmax": (calibrate.MinMaxCalibrater, {}),
        "entropy": (calibrate.EntropyCalibrater, {"num_bins": ENTROPY_BINS}),
        "percentile": (calibrate.PercentileCalibrater, {"percentile": percentile}),
    }
    methods = {tensor: "minmax" if point.endswith("/probs") else method for tensor, point in points.items()}
    ranges: dict[str, float] = {}
    for name in dict.fromkeys(methods.values()):
        selected = {tensor for tensor, tensor_method in methods.items() if tensor_method == name}
        for tensor, largest in _largest(source, selected, *calibrators[name], batches).items():
            ranges[points[tensor]] = largest
    return ranges | {point: largest for place, largest in trained.items() for point in _points_at(place, graph, points)}


def _largest(
    source: Path,
    selected: set[str],
    base: type[CalibraterBase],
    options: Mapping[str, float],
    batches: Sequence[Mapping[str, Array]],
) -> dict[str, float]:
    """Return the range of each `selected` tensor by the onnxruntime calibrator class `base`."""

    with private_copy(source) as link:
        augmented, large = str(link.with_name("augmented.onnx")), onnx_files.is_large(link)
        calibrator = limited_to(base, selected)(
            str(link), None, augmented, symmetric=True, use_external_data_format=large, **options
        )
        calibrator.augment_graph()
        calibrator.create_inference_session()
        collect_ranges(calibrator, batches)
        tensors = calibrator.compute_data()
    return {tensor: float(np.abs(np.stack(values.range_value)).max()) for tensor, values in tensors.items()}


def _excluded_operations(source: Path, patterns: Sequence[str]) -> list[str]:
    operations = set()
    for name in matching_names([node.name for node in onnx_files.graph_of(source).node], patterns):
        layer, kind = node_at(name) or (-1, "")
        operations |= {f"{layer}/{computed}" for computed, nodes in PLUGIN_OPERATIONS.items() if kind in nodes}
    return sorted(operations)


def _points_at(place: str, graph: onnx.GraphProto, points: Mapping[str, str]) -> list[str]:
    """Return the point of a trained place, if there is one. Attention has a Transpose or Reshape between them."""
    producers = {output: node for node in graph.node for output in node.output}
    (tensor,) = tensor_ranges(graph, {place: 0.0})
    while tensor not in points:
        if tensor not in producers or producers[tensor].op_type not in ("Transpose", "Reshape"):
            return []
        tensor = producers[tensor].input[0]
    return [points[tensor]]


def points_of(nodes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the point of each tensor that has one.

    Args:
        nodes: (name, output) of each node of the graph.

    Raises:
        ValueError: a layer has no node for a point, for example because the exporter changed its names.
    """
    points = named_points(nodes)
    layers = {point.split("/")[0] for point in points.values() if "/" in point}
    expected = {"embeddings", *(f"{layer}/{point}" for layer in layers for point in POINTS if point != "embeddings")}
    if not layers or expected - set(points.values()):
        raise ValueError(f"the graph lacks {', '.join(sorted(expected - set(points.values()))) or 'layers'}")
    return points


def named_points(nodes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the points like `points_of`, but accept that points are missing."""
    points = {output: point for name, output in nodes if (point := point_at(name))}
    if PROJECTION in points.values():
        points = {output: point for output, point in points.items() if point != "embeddings"}
    return {output: "embeddings" if point == PROJECTION else point for output, point in points.items()}
