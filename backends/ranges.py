"""How large the activations of an encoder get, at the points where INT8 plugins round them.

Found by running calibration inputs through the FP32 ONNX file, with onnxruntime's calibrators.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends import onnx_files
from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.calibration import ENTROPY_BINS, alone, collect
from backends.quantize import NODES, placed
from backends.typed import matching

POINTS = {
    "embeddings": r"/embeddings(/LayerNorm/LayerNormalization|_project/Add)$",
    "query": r"/(query|q_lin)/Add$",
    "key": r"/(key|k_lin)/Add$",
    "value": r"/(value|v_lin)/Add$",
    "probs": r"/attention/(self/)?Softmax$",
    "context": r"/attention/(self/)?MatMul_1$",
    "attended": r"/attention/(output/dense|out_lin)/Add$",
    "attention": r"/(attention/output/LayerNorm|sa_layer_norm)/LayerNormalization$",
    "up": r"/(intermediate/dense|ffn/lin1)/Add$",
    "gelu": r"/(intermediate_act_fn|activation)/Mul_1$",
    "down": r"(?<!/attention)/(output/dense|ffn/lin2)/Add$",
    "output": r"/layer\.\d+/(output/LayerNorm|output_layer_norm)/LayerNormalization$",
}
"""Points by the name of the node whose output they are: `embeddings` once, the others in each layer."""

COMPUTED = {
    "qkv": ("query", "key", "value"),
    "attention": ("scores", "context"),
    "attended": ("attention_output",),
    "up": ("ffn_up",),
    "down": ("ffn_down",),
}
"""What plugins compute in INT8, by the nodes of the graph (backends/quantize.py's NODES) that it stands for."""


def activation_ranges(
    source: Artifact,
    method: str,
    percentile: float,
    calibration: Callable[[], Sequence[Mapping[str, Array]]],
    trained: Mapping[str, float],
    leave_out: Sequence[str],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """A JSON file of the largest absolute value by point, "embeddings" or "<layer>/<point>"; its notes have `left`,
    what is not to be computed in INT8, "<layer>/<one of COMPUTED>".

    Args:
        method: "minmax", "entropy" or "percentile" (then of `percentile` percent of the values). Probabilities go by
            "minmax" whatever the others do: the few that are large are what attention is, and entropy cuts at 0.13.
        calibration: gives the feeds, all of one shape.
        trained: ranges that were learned, by place in the graph (backends/rounding.py); they go before those found.
        leave_out: patterns of nodes of the graph that are left alone.
        key: what the calibration was made from.

    Raises:
        ValueError: a pattern of `leave_out` matches no node.
    """

    def build(path: Path) -> Mapping[str, Any]:
        path.write_text(
            json.dumps(_collect(source.path, method, percentile, calibration(), trained), indent=1), encoding="utf-8"
        )
        return {"left": _left(source.path, leave_out)}

    everything = {
        "source": source.sha256,
        "method": method,
        "percentile": percentile,
        "form": 5,
        **({"trained": dict(trained)} if trained else {}),
        **({"leave_out": list(leave_out)} if leave_out else {}),
        **key,
    }
    return cache.get("ranges", everything, "ranges.json", build, versions_of(("onnxruntime-gpu", "onnxruntime")))


def _collect(
    source: Path, method: str, percentile: float, batches: Sequence[Mapping[str, Array]], trained: Mapping[str, float]
) -> dict[str, float]:
    from onnxruntime.quantization import calibrate

    graph = onnx_files.graph_of(source)
    points = points_of([(node.name, node.output[0]) for node in graph.node])
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "minmax": (calibrate.MinMaxCalibrater, {}),
        "entropy": (calibrate.EntropyCalibrater, {"num_bins": ENTROPY_BINS}),
        "percentile": (calibrate.PercentileCalibrater, {"percentile": percentile}),
    }
    methods = {tensor: "minmax" if point.endswith("/probs") else method for tensor, point in points.items()}
    found: dict[str, float] = {}
    for chosen in dict.fromkeys(methods.values()):
        wanted = {tensor for tensor, by in methods.items() if by == chosen}
        for tensor, largest in _largest(source, wanted, *kinds[chosen], batches).items():
            found[points[tensor]] = largest
    return found | {point: largest for place, largest in trained.items() for point in _points_at(place, graph, points)}


def _largest(
    source: Path, wanted: set[str], base: Any, options: Mapping[str, Any], batches: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """What one of onnxruntime's calibrators makes of the tensors `wanted`."""

    class Calibrator(base):  # type: ignore[misc]  # onnxruntime has no types; chosen at run time
        def select_tensors_to_calibrate(self, model: Any) -> tuple[set[str], dict[str, Any]]:
            tensors, infos = super().select_tensors_to_calibrate(model)
            return tensors & wanted, infos

    with alone(source) as link:
        augmented, large = str(link.with_name("augmented.onnx")), onnx_files.is_large(link)
        calibrator = Calibrator(str(link), None, augmented, symmetric=True, use_external_data_format=large, **options)
        calibrator.augment_graph()
        calibrator.create_inference_session()
        collect(calibrator, batches)
        tensors = calibrator.compute_data()
    return {tensor: float(np.abs(np.stack(values.range_value)).max()) for tensor, values in tensors.items()}


def _left(source: Path, patterns: Sequence[str]) -> list[str]:
    found = set()
    for name in matching([node.name for node in onnx_files.graph_of(source).node], patterns):
        layer = re.search(r"/layer\.(\d+)/", name)
        for computed, nodes in COMPUTED.items():
            if layer and any(re.search(NODES[node], name) for node in nodes):
                found.add(f"{layer.group(1)}/{computed}")
    return sorted(found)


def _points_at(place: str, graph: Any, points: Mapping[str, str]) -> list[str]:
    """The point that a trained place is, if it is one: attention's inputs lie behind a transposition of the product."""
    producers = {output: node for node in graph.node for output in node.output}
    (tensor,) = placed(graph, {place: 0.0})
    while tensor not in points:
        if tensor not in producers or producers[tensor].op_type not in ("Transpose", "Reshape"):
            return []
        tensor = producers[tensor].input[0]
    return [points[tensor]]


def points_of(nodes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Point by tensor, for (name, output) of each node.

    Raises:
        ValueError: a layer lacks a point, as after a change of the exporter's names.
    """
    points = named_points(nodes)
    layers = {point.split("/")[0] for point in points.values() if "/" in point}
    wanted = {"embeddings", *(f"{layer}/{point}" for layer in layers for point in POINTS if point != "embeddings")}
    if not layers or wanted - set(points.values()):
        raise ValueError(f"the graph lacks {', '.join(sorted(wanted - set(points.values()))) or 'layers'}")
    return points


def named_points(nodes: Sequence[tuple[str, str]]) -> dict[str, str]:
    """As `points_of`, of whichever nodes there are."""
    points = {}
    for name, output in nodes:
        layer = re.search(r"/layer\.(\d+)/", name)
        for point, pattern in POINTS.items():
            if re.search(pattern, name):
                points[output] = f"{layer.group(1)}/{point}" if layer else point
    # An ELECTRA projects its embeddings after their norm: the projection is what the layers read.
    if any("_project/" in output for output in points):
        points = {output: point for output, point in points.items() if "/embeddings/LayerNorm" not in output}
    return points
