"""Store the weights of a Q/DQ graph as INT8, for export.

The measured file has FP32 weights, each with a Q/DQ pair, because TensorRT 8.6 reads no INT8 constants. This module
makes a file for ONNX Runtime alone:

- A weight with a Q/DQ pair is stored as the INT8 values that QuantizeLinear computes. DequantizeLinear stays. Outputs
  do not change.
- A large embedding is stored as INT8 with one scale for each row. The rows that Gather selects are converted to FP32.
  This rounds each value by at most 1/254 of the largest value in its row.

Both need operators of opset 17 only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from backends.base import Array
from backends.onnx_ import onnx_files

if TYPE_CHECKING:
    import onnx

LARGEST = 127
"""Largest absolute value of symmetric INT8."""

LARGE_TABLE = 1 << 20
"""Smallest number of values of an embedding that is stored as INT8. Tables of positions and token types are smaller."""


def compact_weights(source: Path, path: Path, embeddings: bool = True) -> Mapping[str, int]:
    """Write the Q/DQ graph of `source` to `path`, with weights stored as INT8.

    Args:
        embeddings: whether large embeddings are stored as INT8 too.

    Returns:
        The number of weights (`weights`) and of embeddings (`embeddings`) that are stored as INT8.
    """
    model = onnx_files.load(source)
    rewrite = _Rewrite(model)
    counts = {"weights": rewrite.quantized_weights(), "embeddings": rewrite.embeddings() if embeddings else 0}
    rewrite.finish()
    onnx_files.save(model, path)
    return counts


def quantize_rows(table: Array) -> tuple[Array, Array]:
    """Return a table [rows, columns] as INT8, and the scale of each row, FP32 [rows, 1].

    A row of zeros has the scale 1.
    """
    largest = np.abs(table).max(axis=1, keepdims=True).astype(np.float32)
    scales = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(table / scales).clip(-LARGEST, LARGEST).astype(np.int8), scales


class _Rewrite:
    """Rewrite of one model. `finish` removes the initializers that no node reads any more."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._constants |= {node.output[0]: node.attribute[0].t for node in self._graph.node if _is_tensor(node)}

    def quantized_weights(self) -> int:
        """Replace each QuantizeLinear of a constant by its result; return their number."""
        replaced = [node for node in self._graph.node if self._quantizes_constant(node)]
        for node in replaced:
            self._add(node.output[0], self._quantized(node))
            self._graph.node.remove(node)
        return len(replaced)

    def embeddings(self) -> int:
        """Replace each Gather from a large FP32 table; return the number of tables."""
        gathers = list(self._gathers())
        for node in gathers:
            self._replace_gather(node)
        return len(gathers)

    def finish(self) -> None:
        used = {name for node in self._graph.node for name in node.input}
        unused = [tensor for tensor in self._graph.initializer if tensor.name not in used]
        for tensor in unused:
            self._graph.initializer.remove(tensor)

    def _quantizes_constant(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "QuantizeLinear" and all(name in self._constants for name in node.input if name)

    def _quantized(self, node: onnx.NodeProto) -> Array:
        """Return the result of a QuantizeLinear: round half to even, then saturate (the specification of ONNX)."""
        values, scale, *zero = (self._value(name) for name in node.input if name)
        zero_point = zero[0] if zero else np.zeros_like(scale, np.uint8)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.size > 1:
            sizes = [1] * values.ndim
            sizes[axis] = scale.size
            scale, zero_point = scale.reshape(sizes), zero_point.reshape(sizes)
        limits = np.iinfo(zero_point.dtype)
        rounded = np.rint(values / scale) + zero_point.astype(np.float32)
        return np.asarray(rounded.clip(limits.min, limits.max), zero_point.dtype)

    def _gathers(self) -> Iterator[onnx.NodeProto]:
        for node in self._graph.node:
            if node.op_type != "Gather" or node.input[0] not in self._constants:
                continue
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            table = self._value(node.input[0])
            if axis == 0 and table.ndim == 2 and table.dtype == np.float32 and table.size >= LARGE_TABLE:
                yield node

    def _replace_gather(self, node: onnx.NodeProto) -> None:
        """Replace a Gather by Gather of INT8 rows, Cast, and a product with the gathered scales."""
        import onnx

        table, ids, output = node.input[0], node.input[1], node.output[0]
        rows, scales = quantize_rows(self._value(table))
        self._add(f"{table}_int8", rows)
        self._add(f"{table}_scales", scales)
        make = onnx.helper.make_node
        added = [
            make("Gather", [f"{table}_int8", ids], [f"{output}_int8"], f"{node.name}_int8", axis=0),
            make("Cast", [f"{output}_int8"], [f"{output}_cast"], f"{node.name}_cast", to=onnx.TensorProto.FLOAT),
            make("Gather", [f"{table}_scales", ids], [f"{output}_scales"], f"{node.name}_scales", axis=0),
            make("Mul", [f"{output}_cast", f"{output}_scales"], [output], f"{node.name}_scaled"),
        ]
        place = list(self._graph.node).index(node)
        self._graph.node.remove(node)
        for offset, new in enumerate(added):
            self._graph.node.insert(place + offset, new)

    def _add(self, name: str, values: Array) -> None:
        import onnx

        if name not in {tensor.name for tensor in self._graph.initializer}:  # two nodes may share a table
            self._graph.initializer.append(onnx.numpy_helper.from_array(values, name))

    def _value(self, name: str) -> Array:
        import onnx

        return np.asarray(onnx.numpy_helper.to_array(self._constants[name]))


def _is_tensor(node: onnx.NodeProto) -> bool:
    """Return whether a node is a Constant with a tensor."""
    return bool(node.op_type == "Constant" and node.attribute[0].name == "value")
