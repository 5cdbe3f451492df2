"""Rewrites of an exported encoder with onnx-graphsurgeon. All compute the same function, except `cubic_gelu`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Array, Artifact, versions_of
from backends.cache import ArtifactCache
from backends.model.layer_names import MERGED_PRODUCT
from backends.onnx_ import onnx_files
from backends.onnx_.gelu import GELU_VARIANTS

if TYPE_CHECKING:
    import onnx_graphsurgeon as gs


def apply_rewrites(source: Artifact, rewrites: Sequence[str], cache: ArtifactCache) -> Artifact:
    """Apply `rewrites`, names from `REWRITES`, to `source` in this order.

    Raises:
        ValueError: a rewrite changes nothing.
    """

    def build(path: Path) -> Mapping[str, object]:
        import onnx_graphsurgeon as gs

        graph = gs.import_onnx(onnx_files.load(source.path))
        changed = {}
        for name in rewrites:
            changed[name] = REWRITES[name](graph)
            if not changed[name]:
                raise ValueError(f"rewrite {name} changes nothing in {source.path.name}; remove it from trt.rewrites")
        onnx_files.save(gs.export_onnx(graph.cleanup().toposort()), path)
        return {"rewrites": changed}

    key = {"source": source.sha256, "rewrites": list(rewrites), "form": 1}
    artifact = cache.get("surgery", key, "model.onnx", build, versions_of(("onnx-graphsurgeon", "onnx")))
    return Artifact(**{**vars(artifact), "notes": {**source.notes, **artifact.notes}})


def constant_reshapes(graph: gs.Graph) -> int:
    """Let reshapes to [batch, sequence, constants] copy both sizes from their input (0 in ONNX).

    Before, a reshape computes them from the shape of another tensor. Return the number of changed reshapes.
    """
    import numpy as np
    import onnx_graphsurgeon as gs

    changed = 0
    for node in [node for node in graph.nodes if node.op == "Reshape"]:
        target = node.inputs[1]
        if not target.inputs or target.inputs[0].op != "Concat":
            continue
        first, second, *others = target.inputs[0].inputs
        constants = [_constant(tensor) for tensor in others]
        if (_axis(first), _axis(second)) != (0, 1) or any(value is None for value in constants):
            continue
        sizes = np.concatenate([[0, 0], *[np.ravel(value) for value in constants if value is not None]])
        node.inputs[1] = gs.Constant(f"{node.name}/target", sizes.astype(np.int64))
        changed += 1
    return changed


def merged_qkv(graph: gs.Graph) -> int:
    """Merge the three projections before each attention into one product [hidden, 3 x hidden] and a split.

    Return the number of changed layers.
    """
    import numpy as np
    import onnx_graphsurgeon as gs

    changed = 0
    products = [node for node in graph.nodes if node.op == "MatMul" and isinstance(node.inputs[1], gs.Constant)]
    groups: dict[str, list[gs.Node]] = {}
    for node in products:
        groups.setdefault(node.inputs[0].name, []).append(node)
    for group in groups.values():
        if len(group) != 3:
            continue
        additions = [node.outputs[0].outputs[0] for node in group]
        biases = [next(tensor for tensor in add.inputs if isinstance(tensor, gs.Constant)) for add in additions]
        base = f"{group[0].name.rsplit('/', 2)[0]}/{MERGED_PRODUCT}"
        dtype = group[0].inputs[1].dtype
        weights = gs.Constant(f"{base}/weight", np.concatenate([node.inputs[1].values for node in group], axis=1))
        bias = gs.Constant(f"{base}/bias", np.concatenate([tensor.values for tensor in biases]))
        product, total = gs.Variable(f"{base}/product", dtype), gs.Variable(f"{base}/total", dtype)
        sizes = gs.Constant(f"{base}/sizes", np.array([tensor.values.size for tensor in biases], np.int64))
        outputs = [add.outputs[0] for add in additions]
        for add in additions:
            add.outputs.clear()
        graph.nodes += [
            gs.Node("MatMul", f"{base}/MatMul", inputs=[group[0].inputs[0], weights], outputs=[product]),
            gs.Node("Add", f"{base}/Add", inputs=[product, bias], outputs=[total]),
            gs.Node("Split", f"{base}/Split", {"axis": -1}, inputs=[total, sizes], outputs=outputs),
        ]
        changed += 1
    return changed


def sigmoid_gelu(graph: gs.Graph) -> int:
    """Replace GELU with erf by GELU with a sigmoid. Return the number of replaced GELUs."""
    return _gelu(graph, "sigmoid")


def cubic_gelu(graph: gs.Graph) -> int:
    """Replace GELU by the cubic, a different function that TensorRT fuses into products. Return the number of GELUs."""
    return _gelu(graph, "cubic")


def _gelu(graph: gs.Graph, variant: str) -> int:
    """Replace each GELU with erf by a variant of backends/onnx_/gelu.py. The last node keeps its name and output."""
    changed = 0
    for erf in [node for node in graph.nodes if node.op == "Erf"]:
        scaling, sum_ = erf.inputs[0].inputs[0], erf.outputs[0].outputs[0]
        product = sum_.outputs[0].outputs[0]
        last = product.outputs[0].outputs[0]
        if [node.op for node in (sum_, product, last)] != ["Add", "Mul", "Mul"]:
            continue
        result = GELU_VARIANTS[variant](scaling.inputs[0], GraphArithmetic(graph, erf.name.rpartition("/")[0])).inputs[
            0
        ]
        output = last.outputs[0]
        last.outputs.clear()
        result.name, result.outputs = last.name, [output]
        changed += 1
    return changed


class GraphArithmetic:
    """Arithmetic (backends/onnx_/gelu.py) that adds nodes to `graph`. Their names start with `base`."""

    def __init__(self, graph: gs.Graph, base: str) -> None:
        self._graph, self._base, self._count = graph, base, 0

    def add(self, x: gs.Tensor, other: gs.Tensor | float) -> gs.Tensor:
        return self._node("Add", x, other)

    def multiply(self, x: gs.Tensor, other: gs.Tensor | float) -> gs.Tensor:
        return self._node("Mul", x, other)

    def divide(self, x: gs.Tensor, other: float) -> gs.Tensor:
        return self._node("Div", x, other)

    def power(self, x: gs.Tensor, exponent: float) -> gs.Tensor:
        return self._node("Pow", x, exponent)

    def erf(self, x: gs.Tensor) -> gs.Tensor:
        return self._node("Erf", x)

    def sigmoid(self, x: gs.Tensor) -> gs.Tensor:
        return self._node("Sigmoid", x)

    def tanh(self, x: gs.Tensor) -> gs.Tensor:
        return self._node("Tanh", x)

    def clip(self, x: gs.Tensor, edge: float) -> gs.Tensor:
        return self._node("Clip", x, -edge, edge)

    def _node(self, op: str, *inputs: gs.Tensor | float) -> gs.Tensor:
        import numpy as np
        import onnx_graphsurgeon as gs

        self._count += 1
        name = f"{self._base}/form/{op}_{self._count}"
        tensors = [
            gs.Constant(f"{name}/{index}", np.asarray(value, np.float32)) if isinstance(value, float) else value
            for index, value in enumerate(inputs)
        ]
        output = gs.Variable(f"{name}_output", np.float32)
        self._graph.nodes.append(gs.Node(op, name, inputs=tensors, outputs=[output]))
        return output


REWRITES = {
    "constant_reshapes": constant_reshapes,
    "merged_qkv": merged_qkv,
    "sigmoid_gelu": sigmoid_gelu,
    "cubic_gelu": cubic_gelu,
}


def _constant(tensor: gs.Tensor) -> Array | None:
    """Return the values of an initializer or of a Constant node's output; None for any other tensor."""
    import onnx_graphsurgeon as gs

    if isinstance(tensor, gs.Constant):
        values: Array = tensor.values
        return values
    if tensor.inputs and tensor.inputs[0].op == "Constant":
        constant: Array = tensor.inputs[0].attrs["value"].values
        return constant
    return None


def _axis(tensor: gs.Tensor) -> int | None:
    """Return the axis if `tensor` is Unsqueeze(Gather(Shape(x), axis)), the size of that axis; otherwise None."""
    gather = tensor.inputs[0].inputs[0].inputs if tensor.inputs and tensor.inputs[0].op == "Unsqueeze" else []
    if not gather or gather[0].op != "Gather" or gather[0].inputs[0].inputs[0].op != "Shape":
        return None
    index = _constant(gather[0].inputs[1])
    return None if index is None else int(index)
