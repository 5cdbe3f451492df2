"""Dynamic INT8 of an ONNX graph: products with weights only, and neither a head nor nodes that are left out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from backends.base import Artifact
from backends.cache import ArtifactCache, digest_of
from backends.onnx_.dynamic_int8 import quantize_dynamic_int8
from backends.quantization_options import QuantizationOptions, Scheme

PRODUCTS = ("/encoder/layer.0/query/MatMul", "/encoder/layer.0/ffn/MatMul", "/head/classifier/MatMul")


@pytest.fixture
def source(tmp_path: Path) -> Artifact:
    """Return a graph of three products with weights and one of activations."""
    values = [numpy_helper.from_array(np.eye(4, dtype=np.float32) * n, f"w{n}") for n in (1, 2, 3)]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], PRODUCTS[0]),
        helper.make_node("MatMul", ["a", "w2"], ["b"], PRODUCTS[1]),
        helper.make_node("MatMul", ["a", "b"], ["c"], "/encoder/layer.0/scores/MatMul"),
        helper.make_node("MatMul", ["c", "w3"], ["y"], PRODUCTS[2]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], values)
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return Artifact(path, digest_of(path))


def operators(artifact: Artifact) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(artifact.path)).graph.node)


@pytest.mark.parametrize(
    ("leave_out", "quantized"), [([], 2), (["*/ffn/*"], 1), (["*"], 0)], ids=["all", "some", "none"]
)
def test_only_weight_products_of_the_encoder_are_quantized(
    leave_out: list[str], quantized: int, source: Artifact, tmp_path: Path
) -> None:
    options = QuantizationOptions(scheme=Scheme.dynamic, leave_out=leave_out)
    result = quantize_dynamic_int8(source, options, ArtifactCache(tmp_path / "cache"))
    assert result.notes == {
        "quantized": quantized,
        "weight_products": 2,
        "weight_products_quantized": quantized,
    }
    counts = operators(result)
    assert (counts["MatMulInteger"], counts["MatMul"]) == (quantized, len(PRODUCTS) + 1 - quantized)


def test_each_column_has_its_own_scale_unless_per_channel_is_off(source: Artifact, tmp_path: Path) -> None:
    cache, sizes = ArtifactCache(tmp_path / "cache"), []
    for per_channel in (True, False):
        options = QuantizationOptions(scheme=Scheme.dynamic, per_channel=per_channel)
        model = onnx.load(str(quantize_dynamic_int8(source, options, cache).path))
        (scale,) = (tensor for tensor in model.graph.initializer if tensor.name == "w1_scale")
        sizes.append(numpy_helper.to_array(scale).size)
    assert sizes == [4, 1]
