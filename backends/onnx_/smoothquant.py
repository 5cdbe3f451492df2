"""SmoothQuant on an exported encoder: scale large activation channels down and the weights up.

Each input channel of a weight product is divided by s, and the weight's row is multiplied by s. The product stays the
same. For each channel, s = max|activation|^alpha / max|weight|^(1 - alpha) (Xiao et al., arXiv:2211.10438, equation 4).

The place of the division depends on the tensor:

- Input of attention's output product: the division goes into the weights and the bias of the values, because attention
  is linear in the values. It costs nothing.
- Output of a norm or of GELU: a separate Mul node, shared by the products that read the tensor. It cannot go into the
  norm, because the residual stream also reads the norm's output.

Engines of plugins only use the first case (`fold_arrays`). They have no layer between norms and products that a Mul
could be fused with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache, digest_of
from backends.model.families import node_at
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import CalibrationInputs

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs

SMALLEST_MAXIMUM = 1e-5
"""Channels whose largest activation or weight is not above this value keep s = 1, for example a channel of zeros."""

FOLDED = "folded.npz"
"""File with the divisors of the values [hidden], for each layer."""


def smooth_onnx(
    source: Artifact,
    alpha: float,
    products: Sequence[str],
    calibration: CalibrationInputs,
    cache: ArtifactCache,
) -> Artifact:
    """Smooth weight products of `source`. The file `FOLDED` next to the result has s of attention's output products.

    Args:
        alpha: strength from 0 to 1, the exponent of the activations in the formula of this module.
        products: names from WEIGHT_PRODUCTS of backends/model/layer_names.py.
        calibration: inputs for which the largest activations are taken.
    """

    def build(path: Path) -> Mapping[str, object]:
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx_files.load(source.path))
        groups = _products_by_input(graph, products)
        largest = largest_by_channel(graph, list(groups), calibration.batches())
        folded = {}
        for name, group in groups.items():
            scale = _scale(group, largest[name], alpha)
            if value := _value_of(graph, group):
                _fold(value, group[0], scale)
                layer, _ = _place(group[0])
                folded[str(layer)] = scale
            else:
                _smooth(graph, group, scale)
        onnx_files.save(gs.export_onnx(graph.cleanup().toposort()), path)
        np.savez(path.with_name(FOLDED), **folded)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle
        return {"smoothed": sum(len(group) for group in groups.values())}

    versions = versions_of(("onnxruntime-gpu", "onnxruntime", "onnx-graphsurgeon", "onnx"))
    everything = {"source": source.sha256, "alpha": alpha, "products": list(products), "form": 2, **calibration.key}
    artifact = cache.get("smooth", everything, "model.onnx", build, versions)
    return replace(artifact, notes={**source.notes, **artifact.notes})


def fold_arrays(arrays: Artifact, smoothed: Artifact, cache: ArtifactCache) -> Artifact:
    """Apply the scales of `smoothed` to plain weights (backends/model/weights.py): values and attention's output
    products."""
    folded = smoothed.path.with_name(FOLDED)

    def build(path: Path) -> Mapping[str, object]:
        with np.load(arrays.path, allow_pickle=False) as loaded:
            weights = {name: loaded[name] for name in loaded.files}
        with np.load(folded, allow_pickle=False) as scales:
            for layer in scales.files:
                by_head = scales[layer].reshape(weights[f"{layer}/qkv_bias"].shape[1:]).astype(np.float32)
                for kind, divisor in (("weight", by_head[..., None]), ("bias", by_head)):
                    weights[f"{layer}/qkv_{kind}"][2] /= divisor
                weights[f"{layer}/output_weight"] *= by_head
        np.savez(path, **weights)
        return dict(arrays.notes)

    key = {"arrays": arrays.sha256, "scales": digest_of(folded)}
    return cache.get("folded", key, "weights.npz", build, versions_of(("numpy",)))


def _products_by_input(graph: gs.Graph, products: Sequence[str]) -> dict[str, list[gs.Node]]:
    """Group the weight products of all layers by the name of their input tensor."""
    groups: dict[str, list[gs.Node]] = {}
    for node in graph.nodes:
        if _place(node)[1] in products:
            groups.setdefault(node.inputs[0].name, []).append(node)
    return groups


def largest_by_channel(
    graph: gs.Graph, names: Sequence[str], batches: Sequence[Mapping[str, Array]]
) -> dict[str, Array]:
    """Return the largest absolute value per channel of the tensors `names`, over all batches and including padding."""
    import onnx_graphsurgeon as gs
    import onnxruntime

    observed = graph.copy()
    tensors = observed.tensors()
    observed.outputs = [tensors[name] for name in names]
    for tensor in observed.outputs:
        tensor.dtype = np.float32
    largest: dict[str, Array] = {}
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        onnx_files.save(gs.export_onnx(observed), path)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for feeds in batches:
            for name, values in zip(names, session.run(list(names), dict(feeds)), strict=True):
                batch_largest = np.abs(values).reshape(-1, values.shape[-1]).max(0)
                largest[name] = np.maximum(largest.get(name, batch_largest), batch_largest)
    return largest


def _scale(products: Sequence[gs.Node], activations: Array, alpha: float) -> Array:
    """Return s of each input channel, FP32. See the module docstring for the formula."""
    weights = np.max([np.abs(node.inputs[1].values).max(1) for node in products], axis=0)
    usable = (activations > SMALLEST_MAXIMUM) & (weights > SMALLEST_MAXIMUM)
    scale = np.ones_like(activations)
    scale[usable] = activations[usable] ** alpha / weights[usable] ** (1 - alpha)
    return scale.astype(np.float32)


def _place(node: gs.Node) -> tuple[int, str]:
    """Return the layer and the name of a node in NODES; -1 and an empty name for other nodes."""
    return node_at(node.name) or (-1, "")


def _value_of(graph: gs.Graph, products: Sequence[gs.Node]) -> gs.Node | None:
    """Return the value product of the same layer if `products` is attention's output product.

    None for other products, and if query, key and value are one merged product.
    """
    layer, product = _place(products[0])
    if product != "attention_output":
        return None
    return next((node for node in graph.nodes if _place(node) == (layer, "value")), None)


def _fold(value: gs.Node, output: gs.Node, scale: Array) -> None:
    """Divide the weight and the bias of `value` by `scale`, and multiply the rows of `output`'s weight by it."""
    import onnx_graphsurgeon as gs

    (add,) = value.outputs[0].outputs
    bias = next(index for index, tensor in enumerate(add.inputs) if isinstance(tensor, gs.Constant))
    for node, index, values in (
        (value, 1, value.inputs[1].values / scale),
        (add, bias, add.inputs[bias].values / scale),
        (output, 1, output.inputs[1].values * scale[:, None]),
    ):
        node.inputs[index] = gs.Constant(f"{node.inputs[index].name}/smoothed", values.astype(np.float32))


def _smooth(graph: gs.Graph, products: Sequence[gs.Node], scale: Array) -> None:
    """Insert a Mul by 1 / scale before `products`, and multiply the rows of their weights by `scale`."""
    import onnx_graphsurgeon as gs

    name = f"{products[0].name}/smooth"
    smoothed = gs.Variable(name, np.float32)
    factor = gs.Constant(f"{name}/by", (1 / scale).astype(np.float32))
    graph.nodes.append(gs.Node("Mul", name, {}, [products[0].inputs[0], factor], [smoothed]))
    for node in products:
        values = node.inputs[1].values * scale[:, None]
        node.inputs = [smoothed, gs.Constant(f"{node.inputs[1].name}/smoothed", values)]
