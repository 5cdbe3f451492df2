"""A network whose layers compute at once with numpy, by the rules of TensorRT's documentation.

It has the layers of backends/tensorrt_/plugins/head_layers.py. A tensor is computed when its layer's output is read, so
that settings of a layer after it was added have their effect.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "SUM": np.add, "SUB": np.subtract, "PROD": np.multiply, "DIV": np.divide, "MAX": np.maximum, "AND": np.logical_and,
    "LESS": np.less, "GREATER": np.greater, "EQUAL": np.equal,
}  # fmt: skip
REDUCED: dict[str, Callable[..., Any]] = {"SUM": np.sum, "MAX": np.max}


def _names(*names: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: name for name in names})


TRT: Any = SimpleNamespace(
    ElementWiseOperation=_names(*BINARY),
    ReduceOperation=_names(*REDUCED),
    UnaryOperation=_names("SQRT"),
    MatrixOperation=_names("NONE", "TRANSPOSE"),
    ActivationType=_names("TANH"),
    DataType=SimpleNamespace(FLOAT=np.float32, HALF=np.float16),
    Weights=lambda array: array,
)
"""The names of the module `tensorrt` that these layers use."""


class EvaluatedLayer:
    """A layer. `compute` gets its inputs and the layer, whose attributes are its settings."""

    def __init__(self, compute: Callable[..., Any], *inputs: Any) -> None:
        self.compute, self.inputs = compute, list(inputs)

    def set_input(self, index: int, tensor: Any) -> None:
        self.inputs += [None] * (index + 1 - len(self.inputs))
        self.inputs[index] = tensor

    def get_output(self, index: int) -> Any:
        assert index == 0
        return self.compute(self, *self.inputs)


class EvaluatedNetwork:
    """Layers over arrays of numpy in place of tensors."""

    def add_constant(self, shape: tuple[int, ...], array: Any) -> EvaluatedLayer:
        assert tuple(shape) == array.shape
        return EvaluatedLayer(lambda layer: array)

    def add_shuffle(self, tensor: Any) -> EvaluatedLayer:
        def reshaped(layer: Any, values: Any) -> Any:
            sizes = [values.shape[axis] if size == 0 else size for axis, size in enumerate(layer.reshape_dims)]
            result = values.reshape(sizes)
            return result.transpose(layer.second_transpose) if hasattr(layer, "second_transpose") else result

        return EvaluatedLayer(reshaped, tensor)

    def add_concatenation(self, tensors: list[Any]) -> EvaluatedLayer:
        return EvaluatedLayer(lambda layer, *all_of: np.concatenate(all_of, layer.axis), *tensors)

    def add_gather(self, tensor: Any, indices: Any, axis: int) -> EvaluatedLayer:
        return EvaluatedLayer(lambda layer, values, chosen: np.take(values, chosen, axis), tensor, indices)

    def add_shape(self, tensor: Any) -> EvaluatedLayer:
        return EvaluatedLayer(lambda layer, values: np.array(values.shape, np.int32), tensor)

    def add_slice(
        self, tensor: Any, start: tuple[int, ...], shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> EvaluatedLayer:
        def cut(layer: Any, values: Any, *others: Any) -> Any:
            sizes = others[1] if len(others) > 1 else shape
            ends = [first + size * step for first, size, step in zip(start, sizes, stride, strict=True)]
            assert all(end <= size for end, size in zip(ends, values.shape, strict=True)), "the slice is too long"
            return values[tuple(slice(*part) for part in zip(start, ends, stride, strict=True))]

        return EvaluatedLayer(cut, tensor)

    def add_elementwise(self, first: Any, second: Any, operation: str) -> EvaluatedLayer:
        assert first.ndim == second.ndim, "TensorRT needs equal numbers of axes"
        assert first.dtype == second.dtype, "TensorRT needs equal types"
        return EvaluatedLayer(lambda layer, a, b: BINARY[operation](a, b), first, second)

    def add_matrix_multiply(self, first: Any, first_as: str, second: Any, second_as: str) -> EvaluatedLayer:
        turned = [
            values.swapaxes(-1, -2) if how == "TRANSPOSE" else values
            for values, how in ((first, first_as), (second, second_as))
        ]
        return EvaluatedLayer(lambda layer, a, b: a @ b, *turned)

    def add_reduce(self, tensor: Any, operation: str, axes: int, keep: bool) -> EvaluatedLayer:
        chosen = tuple(axis for axis in range(tensor.ndim) if axes >> axis & 1)
        return EvaluatedLayer(lambda layer, values: REDUCED[operation](values, axis=chosen, keepdims=keep), tensor)

    def add_unary(self, tensor: Any, operation: str) -> EvaluatedLayer:
        assert operation == "SQRT"
        return EvaluatedLayer(lambda layer, values: np.sqrt(values), tensor)

    def add_select(self, condition: Any, then: Any, otherwise: Any) -> EvaluatedLayer:
        return EvaluatedLayer(lambda layer, *inputs: np.where(*inputs), condition, then, otherwise)

    def add_cast(self, tensor: Any, kind: Any) -> EvaluatedLayer:
        return EvaluatedLayer(lambda layer, values: values.astype(kind), tensor)

    def add_activation(self, tensor: Any, kind: str) -> EvaluatedLayer:
        assert kind == "TANH"
        return EvaluatedLayer(lambda layer, values: np.tanh(values), tensor)
