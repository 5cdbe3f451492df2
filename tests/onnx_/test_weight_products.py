"""Placement of Q/DQ by the graph's structure: every weight product of every family, and no product of a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import OTHER_MODELS, TINY_MODELS
from onnx import TensorProto, helper, numpy_helper

from backends.base import Artifact, SourceForm
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.model.checkpoint import load_encoder, run_encoder
from backends.model.families import node_at
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import CalibrationInputs, collect_ranges
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.onnx_.quantize import PLACEMENTS, quantize_onnx
from backends.onnx_.weight_products import in_head, weight_products, with_direct_weights
from backends.options import Switch
from backends.quantization_options import Activation, Method, Placement, QuantizationOptions

INT8 = QuantizationOptions(
    samples=8, sequence=24, placement=Placement.gemm, activation=Activation.uint8, reduce_range=Switch.on
)
"""Options of a CPU without VNNI. Every CPU computes them without saturation."""

Tiny = Callable[[str], tuple[Path, str]]


def quantized_nodes(path: Path) -> set[str]:
    """Return the nodes of which all inputs, except a bias, are the outputs of DequantizeLinear."""
    graph = onnx_files.graph_of(path)
    dequantized = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return {node.name for node in graph.node if len(node.input) > 1 and {*node.input[:2]} <= dequantized}


def linear_calls(folder: Path) -> int:
    """Return how often one pass of the encoder calls a linear module with values of all sequences of the batch.

    DeBERTa also calls them with embeddings of distances, which do not depend on the inputs.
    """
    encoder, calls = load_encoder(folder), []
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: calls.append(len(inputs[0])))
    (feeds,) = calibration_batches(folder, [], CalibrationSize(8, 8), 0)
    run_encoder(encoder, feeds)
    return calls.count(8)


@pytest.mark.parametrize("family", [*TINY_MODELS, *OTHER_MODELS])
def test_int8_covers_every_weight_product_of_a_family(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, identity = tiny(family)
    onnx_file = prepare_source(folder, identity, SourceForm(quantized="int8"), INT8, [], 0, shared_cache).onnx
    assert onnx_file is not None
    count = linear_calls(folder)
    assert count >= 2 * 4
    assert onnx_file.notes["weight_products"] == onnx_file.notes["weight_products_quantized"] == count
    assert onnx_file.notes["quantized"] == count
    assert len(quantized_nodes(onnx_file.path)) == count

    import onnxruntime

    feeds = calibration_batches(folder, [], CalibrationSize(8, 24), 1)[0]
    tokens = feeds["attention_mask"].astype(bool)
    exact, rounded = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0][tokens]
        for path in (export_onnx(folder, identity, shared_cache).path, onnx_file.path)
    )
    cosines = (exact * rounded).sum(-1) / np.linalg.norm(exact, axis=-1) / np.linalg.norm(rounded, axis=-1)
    assert cosines.min() > 0.98
    assert not np.array_equal(exact, rounded)


PROJECTION = {"electra": {"/encoder/embeddings_project/MatMul"}}
"""Weight products outside of the layers, which have no role."""

COUNTS = {"gemm": 12, "ffn": 4, "attention": 12, "all": 20, "all_but_ffn_residual": 18}
WEIGHTS = {"gemm": 12, "ffn": 4, "attention": 8, "all": 12, "all_but_ffn_residual": 12}
"""Quantized nodes of two layers by placement, and the weight products among them."""


@pytest.mark.parametrize("family", TINY_MODELS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_placement_has_the_nodes_of_its_roles(
    placement: str, family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, identity = tiny(family)
    options = replace(INT8, placement=Placement[placement])
    onnx_file = prepare_source(folder, identity, SourceForm(quantized="int8"), options, [], 0, shared_cache).onnx
    assert onnx_file is not None
    graph = onnx_files.graph_of(export_onnx(folder, identity, shared_cache).path)
    by_role = {n.name for n in graph.node if (place := node_at(n.name)) and place[1] in PLACEMENTS[placement]}
    others = PROJECTION.get(family, set()) if placement in ("gemm", "all", "all_but_ffn_residual") else set()
    assert len(by_role) == COUNTS[placement]
    assert quantized_nodes(onnx_file.path) == by_role | others
    assert onnx_file.notes["quantized"] == len(by_role | others)
    assert onnx_file.notes["weight_products"] == 12 + len(PROJECTION.get(family, ()))
    assert onnx_file.notes["weight_products_quantized"] == WEIGHTS[placement] + len(others)


def tensor(name: str, *shape: int) -> TensorProto:
    values = np.random.default_rng(sum(map(ord, name))).normal(0, 0.3, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def hand_made(path: Path) -> Path:
    """Write a graph with all kinds of products: [batch, 8] tokens -> [batch, 4], after a head."""
    double = numpy_helper.from_array(numpy_helper.to_array(tensor("double", 8, 8)).astype(np.float64), "double")
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"], "gather"),
        helper.make_node("MatMul", ["x", "shared"], ["a"], "first"),
        helper.make_node("Identity", ["shared"], ["again"], "identity"),
        helper.make_node("MatMul", ["a", "again"], ["b"], "second"),
        helper.make_node("Transpose", ["wide"], ["turned"], "transpose", perm=[1, 0]),
        helper.make_node("MatMul", ["b", "turned"], ["c"], "third"),
        helper.make_node("Cast", ["double"], ["single"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["c", "single"], ["d"], "fourth"),
        helper.make_node("Transpose", ["d"], ["d_turned"], "keys", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["d", "d_turned"], ["scores"], "attention"),
        helper.make_node("MatMul", ["scores", "d"], ["e"], "context"),
        helper.make_node("MatMul", ["shared", "stack"], ["both"], "constants"),
        helper.make_node("MatMul", ["e", "both"], ["f"], "computed_weight"),
        helper.make_node("MatMul", ["f", "stack"], ["g"], "three_axes"),
        helper.make_node("ReduceMean", ["g"], ["pooled"], "/head/mean", axes=[1], keepdims=0),
        helper.make_node("Constant", [], ["held"], "constant", value=tensor("held", 8, 8)),
        helper.make_node("Gemm", ["pooled", "held", "bias"], ["h"], "gemm", transB=1),
        helper.make_node("Gemm", ["h", "answer"], ["logits"], "/head/out_proj/Gemm"),
    ]
    weights = [tensor("table", 20, 8), tensor("shared", 8, 8), tensor("wide", 8, 8), double, tensor("stack", 1, 8, 8),
               tensor("bias", 8), tensor("answer", 8, 4)]  # fmt: skip
    ids = helper.make_tensor_value_info("ids", TensorProto.INT32, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    graph = helper.make_graph(nodes, "hand_made", [ids], [logits], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))
    return path


def test_a_weight_product_is_found_by_structure(tmp_path: Path) -> None:
    graph = onnx_files.graph_of(hand_made(tmp_path / "model.onnx"))
    assert weight_products(graph) == dict.fromkeys(("first", "second", "third", "fourth", "gemm"), 1)


def test_a_weight_can_be_the_first_operand(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["w", "x"], ["y"], "left")]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    assert weight_products(helper.make_graph(nodes, "left", [x], [y], [tensor("w", 4, 4)])) == {"left": 0}


def test_only_names_that_begin_with_the_scope_are_in_a_head() -> None:
    assert in_head("/head/pooler/dense/Gemm")
    assert not in_head("/encoder/head/dense/MatMul")
    assert not in_head("/header/MatMul")


def run(path: Path, ids: np.ndarray) -> np.ndarray:
    import onnxruntime

    (logits,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"ids": ids})
    return logits


IDS = np.random.default_rng(0).integers(0, 20, (4, 6)).astype(np.int32)


def test_direct_weights_compute_the_same(tmp_path: Path) -> None:
    source = hand_made(tmp_path / "model.onnx")
    direct = with_direct_weights(source)
    assert direct != source
    graph = onnx_files.graph_of(direct)
    onnx.checker.check_model(onnx.load(str(direct)), full_check=True)
    initializers = {item.name for item in graph.initializer}
    products = weight_products(graph)
    assert products == weight_products(onnx_files.graph_of(source))
    reads = {node.name: node.input[1] for node in graph.node if node.name in products}
    assert set(reads.values()) <= initializers
    assert reads["first"] == reads["second"] == "shared"
    assert not {"identity", "transpose", "cast", "constant"} & {node.name for node in graph.node}
    np.testing.assert_allclose(run(direct, IDS), run(source, IDS), rtol=1e-5)
    assert with_direct_weights(direct) == direct


def test_products_of_a_head_stay_in_floating_point(tmp_path: Path) -> None:
    source = Artifact(hand_made(tmp_path / "model.onnx"), "hand made")
    batches = CalibrationInputs(lambda: [{"ids": IDS}])
    made = quantize_onnx(source, "int8", INT8, batches, ArtifactCache(tmp_path / "cache"))
    assert made.notes["weight_products"] == made.notes["weight_products_quantized"] == 5
    assert quantized_nodes(made.path) == {"first", "second", "third", "fourth", "gemm"}
    head = next(node for node in onnx_files.graph_of(made.path).node if node.name == "/head/out_proj/Gemm")
    assert "answer" in head.input
    exact, rounded = run(source.path, IDS), run(made.path, IDS)
    assert 0 < np.linalg.norm(exact - rounded) < 0.1 * np.linalg.norm(exact)


def test_only_inputs_of_quantized_nodes_are_calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention scores need memory for the square of the length."""
    calibrated: set[str] = set()

    def recorded(calibrator: Any, batches: Any) -> None:
        calibrated.update(calibrator.tensors_to_calibrate)
        collect_ranges(calibrator, batches)

    monkeypatch.setattr("backends.onnx_.quantize.collect_ranges", recorded)
    source = Artifact(hand_made(tmp_path / "model.onnx"), "hand made")
    batches = CalibrationInputs(lambda: [{"ids": IDS}])
    options = replace(INT8, method=Method.percentile)
    quantize_onnx(source, "int8", options, batches, ArtifactCache(tmp_path / "cache"))
    assert calibrated == {"x", "a", "b", "c", "pooled"}


def test_products_that_are_left_out_are_counted(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    options = replace(INT8, leave_out=["*/ffn*"])
    onnx_file = prepare_source(*tiny("albert"), SourceForm(quantized="int8"), options, [], 0, shared_cache).onnx
    assert onnx_file is not None
    assert (onnx_file.notes["weight_products"], onnx_file.notes["weight_products_quantized"]) == (13, 9)
