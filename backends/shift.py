"""GELU's output centred, for readers of symmetric INT8 such as TensorRT.

GELU gives nothing below -0.17, so that half of the levels of a symmetric range stand for values that do not come. A
constant is taken off in front of the feed-forward block's second product and given back in that product's bias, which
is what a zero point does. The constant is a whole number of steps, so that 0, which most values are near, stays exact.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backends import onnx_files
from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.quantize import WEIGHT_PRODUCTS
from backends.smooth import largest_by_channel
from backends.typed import matching

LEAST = -0.17
"""Below GELU's minimum, -0.16997 at -0.7518."""

LEVELS = 127

RANGES = "shifted_ranges.json"
"""Largest absolute value after the shift, by place in the graph as backends/quantize.py's `placed` reads it."""


def centred(largest: float) -> tuple[float, float]:
    """What to take off values from `LEAST` to `largest`, and the symmetric range that holds what is left."""
    step = (max(largest, 0.0) - LEAST) / (2 * LEVELS - 1)
    return math.floor(LEVELS + LEAST / step) * step, LEVELS * step


def given_back(offset: float, weight: Array, per_channel: bool = True) -> Array:
    """What a bias [out] gains for `offset` taken off every input of `weight` [in, out], as INT8 rounds that weight:
    symmetrically, by output channel or as a whole."""
    largest = np.abs(weight).max(0) if per_channel else np.abs(weight).max()
    step = np.maximum(largest, 1e-12) / LEVELS
    return np.asarray(offset * (np.round(weight / step) * step).sum(0), np.float32)


def shift_onnx(
    source: Artifact,
    per_channel: bool,
    leave_out: Sequence[str],
    calibration: Callable[[], Sequence[Mapping[str, Array]]],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """`source` with a subtraction after each GELU, unless the product that reads it is left out, and with the ranges of
    what is left in a file `RANGES` beside it.

    Args:
        per_channel: how the weights will be rounded.
        leave_out: patterns (fnmatch) of nodes that are not quantized.
        calibration: gives the feeds whose largest values count.
        key: what the calibration was made from.
    """

    def build(path: Path) -> Mapping[str, Any]:
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx_files.load(source.path))
        left = matching([node.name for node in graph.nodes], leave_out)
        products = [n for n in graph.nodes if re.search(WEIGHT_PRODUCTS["ffn_down"], n.name) and n.name not in left]
        largest = largest_by_channel(graph, [node.inputs[0].name for node in products], calibration())
        ranges = {}
        for node in products:
            offset, reach = centred(float(largest[node.inputs[0].name].max()))
            shifted, name = gs.Variable(f"{node.name}/shifted", np.float32), f"{node.name}/shift"
            by = gs.Constant(f"{name}/by", np.asarray(offset, np.float32))
            graph.nodes.append(gs.Node("Sub", name, {}, [node.inputs[0], by], [shifted]))
            node.inputs[0] = shifted
            (add,) = node.outputs[0].outputs
            place = next(i for i, tensor in enumerate(add.inputs) if isinstance(tensor, gs.Constant))
            bias = add.inputs[place].values + given_back(offset, node.inputs[1].values, per_channel)
            add.inputs[place] = gs.Constant(f"{add.inputs[place].name}/shifted", bias.astype(np.float32))
            ranges[f"{name} output 0"] = reach
        onnx_files.save(gs.export_onnx(graph.cleanup().toposort()), path)
        path.with_name(RANGES).write_text(json.dumps(ranges, indent=1), encoding="utf-8")
        return {"shifted": len(products)}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "onnx"))
    everything = {"source": source.sha256, "per_channel": per_channel, "leave_out": list(leave_out), **key}
    artifact = cache.get("shift", everything, "model.onnx", build, versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})
