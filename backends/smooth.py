"""SmoothQuant on an exported encoder: part of what is hard to round in activations goes into the weights.

Each channel of what a weight product reads is divided by s, and the weight's row multiplied by it, which leaves the
product as it is; by channel, s = max|activation|^alpha / max|weight|^(1 - alpha) (Xiao et al., arXiv:2211.10438,
equation 4).
A norm's output is also added to the residual stream here, so that s cannot go into the norm: it is a Mul of its own,
shared by the products that read one tensor.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.quantize import WEIGHT_PRODUCTS

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

LEAST = 1e-5
"""Below this no channel's largest value counts: a channel that is always 0 stays as it is."""


def smooth_onnx(
    source: Artifact,
    alpha: float,
    calibration: Callable[[], Sequence[Mapping[str, Array]]],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """`source` with its weight products smoothed.

    Args:
        alpha: how much of the difficulty moves, from 0 to 1.
        calibration: gives the feeds whose activations are looked at.
        key: what the calibration was made from.
    """

    def build(path: Path) -> Mapping[str, Any]:
        import onnx
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx.load(str(source.path)))
        groups = _products_by_input(graph)
        largest = _largest(graph, list(groups), calibration())
        for name, products in groups.items():
            _smooth(graph, products, largest[name], alpha)
        onnx.save(gs.export_onnx(graph.cleanup().toposort()), str(path))
        return {"smoothed": sum(len(products) for products in groups.values())}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "onnx"))
    artifact = cache.get("smooth", {"source": source.sha256, "alpha": alpha, **key}, "model.onnx", build, versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})


def _products_by_input(graph: gs.Graph) -> dict[str, list[gs.Node]]:
    """The weight products of all layers, by the name of the tensor that they read."""
    groups: dict[str, list[gs.Node]] = {}
    for node in graph.nodes:
        if any(re.search(pattern, node.name) for pattern in WEIGHT_PRODUCTS.values()):
            groups.setdefault(node.inputs[0].name, []).append(node)
    return groups


def _largest(graph: gs.Graph, names: Sequence[str], batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The largest absolute value of each channel of the tensors `names` over all batches, padding included."""
    import onnx
    import onnx_graphsurgeon as gs
    import onnxruntime

    looked_at = graph.copy()
    tensors = looked_at.tensors()
    looked_at.outputs = [tensors[name] for name in names]
    for tensor in looked_at.outputs:
        tensor.dtype = np.float32
    found: dict[str, Array] = {}
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(gs.export_onnx(looked_at), str(path))
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for feeds in batches:
            for name, values in zip(names, session.run(list(names), dict(feeds)), strict=True):
                now = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                found[name] = np.maximum(found.get(name, now), now)
    return found


def _smooth(graph: gs.Graph, products: Sequence[gs.Node], activations: Array, alpha: float) -> None:
    """Put a Mul before `products` and its inverse into their weights."""
    import onnx_graphsurgeon as gs

    weights = np.max([np.abs(node.inputs[1].values).max(1) for node in products], axis=0)
    usable = (activations > LEAST) & (weights > LEAST)
    scale = np.ones_like(activations)
    scale[usable] = activations[usable] ** alpha / weights[usable] ** (1 - alpha)
    name = f"{products[0].name}/smooth"
    smoothed = gs.Variable(name, np.float32)
    by = gs.Constant(f"{name}/by", (1 / scale).astype(np.float32))
    graph.nodes.append(gs.Node("Mul", name, {}, [products[0].inputs[0], by], [smoothed]))
    for node in products:
        values = node.inputs[1].values * scale[:, None].astype(np.float32)
        node.inputs = [smoothed, gs.Constant(f"{node.inputs[1].name}/smoothed", values)]
