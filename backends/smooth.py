"""SmoothQuant on an exported encoder: part of what is hard to round in activations goes into the weights.

Each channel of what a weight product reads is divided by s, and the weight's row multiplied by it, which leaves the
product as it is; by channel, s = max|activation|^alpha / max|weight|^(1 - alpha) (Xiao et al., arXiv:2211.10438,
equation 4).
Attention's shares only mix values, so that what its output product reads is divided in the weights and the bias of the
values, which costs nothing. A norm's output is also added to the residual stream here, so that s cannot go into the
norm: it is a Mul of its own, shared by the products that read one tensor. A GELU is followed by one too. An engine of
plugins takes the first alone (`fold_arrays`): between its norms and products there is no layer that a Mul would be
fused with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from backends import onnx_files
from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache, digest_of
from backends.quantize import WEIGHT_PRODUCTS

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

LEAST = 1e-5
"""Below this no channel's largest value counts: a channel that is always 0 stays as it is."""

FOLDED = "folded.npz"
"""By layer, what its values are divided by [hidden]."""


def smooth_onnx(
    source: Artifact,
    alpha: float,
    products: Sequence[str],
    calibration: Callable[[], Sequence[Mapping[str, Array]]],
    key: Mapping[str, Any],
    cache: ArtifactCache,
) -> Artifact:
    """`source` with weight products smoothed; beside it `FOLDED`, the s of attention's output products by layer.

    Args:
        alpha: how much of the difficulty moves, from 0 to 1.
        products: which, names out of backends/quantize.py's WEIGHT_PRODUCTS.
        calibration: gives the feeds whose activations are looked at.
        key: what the calibration was made from.
    """

    def build(path: Path) -> Mapping[str, Any]:
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx_files.load(source.path))
        groups = _products_by_input(graph, products)
        largest = largest_by_channel(graph, list(groups), calibration())
        folded = {}
        for name, group in groups.items():
            scale = _scale(group, largest[name], alpha)
            if value := _value_of(graph, group):
                _fold(value, group[0], scale)
                folded[_layer(group[0].name)] = scale
            else:
                _smooth(graph, group, scale)
        onnx_files.save(gs.export_onnx(graph.cleanup().toposort()), path)
        np.savez(path.with_name(FOLDED), **folded)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"smoothed": sum(len(group) for group in groups.values())}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "onnx"))
    everything = {"source": source.sha256, "alpha": alpha, "products": list(products), "form": 2, **key}
    artifact = cache.get("smooth", everything, "model.onnx", build, versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})


def fold_arrays(arrays: Artifact, smoothed: Artifact, cache: ArtifactCache) -> Artifact:
    """Plain weights (backends/weights.py) with the values and attention's output products of `smoothed`."""
    folded = smoothed.path.with_name(FOLDED)

    def build(path: Path) -> Mapping[str, Any]:
        with np.load(arrays.path, allow_pickle=False) as loaded:
            found = {name: loaded[name] for name in loaded.files}
        with np.load(folded, allow_pickle=False) as scales:
            for layer in scales.files:
                by_head = scales[layer].reshape(found[f"{layer}/qkv_bias"].shape[1:]).astype(np.float32)
                for kind, divisor in (("weight", by_head[..., None]), ("bias", by_head)):
                    found[f"{layer}/qkv_{kind}"][2] /= divisor
                found[f"{layer}/output_weight"] *= by_head
        np.savez(path, **found)
        return dict(arrays.notes)

    key = {"arrays": arrays.sha256, "scales": digest_of(folded)}
    return cache.get("folded", key, "weights.npz", build, versions_of(("numpy",)))


def _products_by_input(graph: gs.Graph, products: Sequence[str]) -> dict[str, list[gs.Node]]:
    """The weight products of all layers, by the name of the tensor that they read."""
    groups: dict[str, list[gs.Node]] = {}
    for node in graph.nodes:
        if any(re.search(WEIGHT_PRODUCTS[product], node.name) for product in products):
            groups.setdefault(node.inputs[0].name, []).append(node)
    return groups


def largest_by_channel(
    graph: gs.Graph, names: Sequence[str], batches: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """The largest absolute value of each channel of the tensors `names` over all batches, padding included."""
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
        onnx_files.save(gs.export_onnx(looked_at), path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for feeds in batches:
            for name, values in zip(names, session.run(list(names), dict(feeds)), strict=True):
                now = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                found[name] = np.maximum(found.get(name, now), now)
    return found


def _scale(products: Sequence[gs.Node], activations: Array, alpha: float) -> Array:
    """s by channel, FP32."""
    weights = np.max([np.abs(node.inputs[1].values).max(1) for node in products], axis=0)
    usable = (activations > LEAST) & (weights > LEAST)
    scale = np.ones_like(activations)
    scale[usable] = activations[usable] ** alpha / weights[usable] ** (1 - alpha)
    return scale.astype(np.float32)


def _layer(name: str) -> str:
    found = re.search(r"/layer\.(\d+)/", name)
    return found.group(1) if found else ""


def _value_of(graph: gs.Graph, products: Sequence[gs.Node]) -> gs.Node | None:
    """The product of the values that `products`, if they are attention's output, are mixed from; None where they are
    not, or where query, key and value are one product."""
    if not re.search(WEIGHT_PRODUCTS["attention_output"], products[0].name):
        return None
    return next(
        (
            node
            for node in graph.nodes
            if re.search(WEIGHT_PRODUCTS["value"], node.name) and _layer(node.name) == _layer(products[0].name)
        ),
        None,
    )


def _fold(value: gs.Node, output: gs.Node, scale: Array) -> None:
    """Divide what `value` and its bias give, and multiply the rows of `output`'s weight."""
    import onnx_graphsurgeon as gs

    (add,) = value.outputs[0].outputs
    place = next(index for index, tensor in enumerate(add.inputs) if isinstance(tensor, gs.Constant))
    for node, index, values in (
        (value, 1, value.inputs[1].values / scale),
        (add, place, add.inputs[place].values / scale),
        (output, 1, output.inputs[1].values * scale[:, None]),
    ):
        node.inputs[index] = gs.Constant(f"{node.inputs[index].name}/smoothed", values.astype(np.float32))


def _smooth(graph: gs.Graph, products: Sequence[gs.Node], scale: Array) -> None:
    """Put a Mul before `products` and its inverse into their weights."""
    import onnx_graphsurgeon as gs

    name = f"{products[0].name}/smooth"
    smoothed = gs.Variable(name, np.float32)
    by = gs.Constant(f"{name}/by", (1 / scale).astype(np.float32))
    graph.nodes.append(gs.Node("Mul", name, {}, [products[0].inputs[0], by], [smoothed]))
    for node in products:
        values = node.inputs[1].values * scale[:, None]
        node.inputs = [smoothed, gs.Constant(f"{node.inputs[1].name}/smoothed", values)]
