"""Weight products of a graph, found by its structure alone.

A weight product is a MatMul or Gemm of an activation and a weight [rows, columns]. An activation depends on an input of
the graph. Products of two activations (attention) and lookups of rows (embeddings) are not weight products. Neither is
a product of two constants, because runtimes compute it once, when they load the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backends.onnx_ import onnx_files

if TYPE_CHECKING:
    import onnx

HEAD_SCOPE = "/head/"
"""Begin of the node names of pooling and heads after the encoder. Their products are small and decide the answer, so
they stay in floating point."""

OPERATORS = ("MatMul", "Gemm")

PASSED = ("Identity", "Transpose", "Cast")
"""Operators that may stand between a weight and its product. Layers that share a weight read it through Identity."""


def in_head(name: str) -> bool:
    """Return whether the node of this name belongs to pooling or a head, which are not quantized."""
    return name.startswith(HEAD_SCOPE)


def weight_products(graph: onnx.GraphProto) -> dict[str, int]:
    """Return the weight products of the encoder by node name, and which input of each (0 or 1) is the weight.

    Products in a head do not count.
    """
    constants, producers = _constants(graph), _producers(graph)
    varying = {value.name for value in graph.input} - set(constants)
    products = {}
    for node in graph.node:  # in an order in which inputs are computed before they are read
        if varying & set(node.input):
            varying |= set(node.output)
        if node.op_type in OPERATORS and not in_head(node.name):
            for weight, activation in ((1, 0), (0, 1)):
                path = _path_of(node.input[weight], producers)
                stored = constants.get(path[0].input[0] if path else node.input[weight])
                if node.input[activation] in varying and stored is not None and len(stored.dims) == 2:
                    products[node.name] = weight
    return products


def with_direct_weights(source: Path) -> Path:
    """Let all weight products of `source` read their weight directly. Return `source` or a new file next to it.

    Quantization finds a weight only if it is an initializer.
    """
    graph = onnx_files.graph_of(source)
    products, initializers = weight_products(graph), {tensor.name for tensor in graph.initializer}
    if all(node.input[products[node.name]] in initializers for node in graph.node if node.name in products):
        return source
    model = onnx_files.load(source)
    _connect_weights(model.graph, products)
    path = source.with_name("direct_weights.onnx")
    onnx_files.save(model, path)
    return path


def _connect_weights(graph: onnx.GraphProto, products: dict[str, int]) -> None:
    import numpy as np
    from onnx import helper, numpy_helper

    constants, producers = _constants(graph), _producers(graph)
    initializers, passed = {tensor.name for tensor in graph.initializer}, set()
    for node in graph.node:
        if node.name not in products:
            continue
        index = products[node.name]
        path = _path_of(node.input[index], producers)
        name = path[0].input[0] if path else node.input[index]
        passed |= {name, *(step.output[0] for step in path)}
        steps = [step for step in path if step.op_type != "Identity"]
        direct = "/".join([name, *(step.output[0] for step in steps), *(() if name in initializers else ("weight",))])
        if direct not in initializers:
            values = numpy_helper.to_array(constants[name])
            for step in steps:
                attributes = {item.name: helper.get_attribute_value(item) for item in step.attribute}
                if step.op_type == "Transpose":
                    values = np.transpose(values, attributes.get("perm"))
                else:
                    values = values.astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), direct))
            initializers.add(direct)
        node.input[index] = direct
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    unread = [node for node in graph.node if node.output and node.output[0] in passed - read]
    for node in unread:
        graph.node.remove(node)


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Return initializers and values of Constant nodes by tensor name."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and (values := [item.t for item in node.attribute if item.name == "value"]):
            constants[node.output[0]] = values[0]
    return constants


def _producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in graph.node for output in node.output}


def _path_of(tensor: str, producers: dict[str, onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes of PASSED types that end in `tensor`, in the order of computation."""
    path: list[onnx.NodeProto] = []
    while tensor in producers and producers[tensor].op_type in PASSED:
        path.insert(0, producers[tensor])
        tensor = path[0].input[0]
    return path
