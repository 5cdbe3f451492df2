"""Shift GELU's output to the centre of its range, for backends with symmetric INT8 such as TensorRT.

GELU has no output below -0.17, so nearly half of the levels of a symmetric range are never used. A constant is
subtracted before the second product of the feed-forward block, and the bias of that product is corrected for it. The
effect is that of a zero point. The constant is a whole number of quantization steps, so 0 stays exact. Most values are
near 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.model.families import node_at
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.onnx_casts import matching_names
from backends.onnx_.smoothquant import largest_by_channel

GELU_MINIMUM = -0.17
"""Lower limit of GELU's output. Its minimum is -0.16997, at x = -0.7518."""

LEVELS = 127

SHIFTED_RANGES = "shifted_ranges.json"
"""JSON file of the largest absolute value after the shift, by place in the graph (`placed` of
backends/onnx_/quantize.py)."""


def centred_range(largest: float) -> tuple[float, float]:
    """Return the offset to subtract from values in `LEAST`..`largest`, and the symmetric range of the result."""
    step = (max(largest, 0.0) - GELU_MINIMUM) / (2 * LEVELS - 1)
    return math.floor(LEVELS + GELU_MINIMUM / step) * step, LEVELS * step


def bias_correction(offset: float, weight: Array, per_channel: bool = True) -> Array:
    """Return the correction of a bias [out] if `offset` is subtracted from every input of `weight` [in, out].

    It uses the weight as INT8 rounds it: symmetrically, per output channel or per tensor.
    """
    largest = np.abs(weight).max(0) if per_channel else np.abs(weight).max()
    step = np.maximum(largest, 1e-12) / LEVELS
    return np.asarray(offset * (np.round(weight / step) * step).sum(0), np.float32)


def shift_onnx(
    source: Artifact,
    per_channel: bool,
    leave_out: Sequence[str],
    calibration: CalibrationInputs,
    cache: ArtifactCache,
) -> Artifact:
    """Add a subtraction after each GELU of `source` whose reader is quantized.

    The file `RANGES` next to the result has the ranges of the shifted tensors.

    Args:
        per_channel: whether weights will be rounded per output channel, or per tensor.
        leave_out: fnmatch patterns of nodes that are not quantized.
        calibration: inputs for which GELU's largest outputs are taken.
    """

    def build(path: Path) -> Mapping[str, object]:
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx_files.load(source.path))
        excluded = matching_names([node.name for node in graph.nodes], leave_out)
        products = [
            node
            for node in graph.nodes
            if (place := node_at(node.name)) and place[1] == "ffn_down" and node.name not in excluded
        ]
        largest = largest_by_channel(graph, [node.inputs[0].name for node in products], calibration.batches())
        ranges = {}
        for node in products:
            offset, shifted_range = centred_range(float(largest[node.inputs[0].name].max()))
            shifted, name = gs.Variable(f"{node.name}/shifted", np.float32), f"{node.name}/shift"
            constant = gs.Constant(f"{name}/by", np.asarray(offset, np.float32))
            graph.nodes.append(gs.Node("Sub", name, {}, [node.inputs[0], constant], [shifted]))
            node.inputs[0] = shifted
            (add,) = node.outputs[0].outputs
            index = next(i for i, tensor in enumerate(add.inputs) if isinstance(tensor, gs.Constant))
            bias = add.inputs[index].values + bias_correction(offset, node.inputs[1].values, per_channel)
            add.inputs[index] = gs.Constant(f"{add.inputs[index].name}/shifted", bias.astype(np.float32))
            ranges[f"{name} output 0"] = shifted_range
        onnx_files.save(gs.export_onnx(graph.cleanup().toposort()), path)
        path.with_name(SHIFTED_RANGES).write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"shifted": len(products)}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "onnx"))
    everything = {"source": source.sha256, "per_channel": per_channel, "leave_out": list(leave_out), **calibration.key}
    artifact = cache.get("shift", everything, "model.onnx", build, versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})
