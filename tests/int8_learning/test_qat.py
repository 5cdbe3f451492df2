"""Quantization-aware training of a tiny encoder: places of rounding, trained values, and their use by every backend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import TINY_MODELS, rounding_session
from safetensors.numpy import load_file, save_file
from torch.nn.utils import parametrize

from backends.base import SourceForm
from backends.cache import ArtifactCache, digest_of
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.int8_learning.distillation_pair import Student
from backends.int8_learning.fake_quantization import (
    ActivationRounding,
    fake_quantize,
    register_attention,
    round_encoder,
)
from backends.int8_learning.qat import TRAINED_RANGES, train
from backends.model.checkpoint import load_encoder, run_encoder
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.onnx_.quantize import PLACEMENTS, tensor_ranges
from backends.onnx_.ranges import activation_ranges
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions

Tiny = Callable[[str], tuple[Path, str]]
TEXTS = ["a line", "another", "and a third line"]
CHOSEN = QuantizationOptions(placement=Placement.gemm, samples=8, sequence=24, activation=Activation.int8,
                             reduce_range=Switch.off, qat_steps=60, qat_rate=5e-5)  # fmt: skip
RECIPE = (CHOSEN, TEXTS, 0)


def test_rounding_has_255_levels_and_a_gradient_inside_its_range() -> None:
    values = torch.linspace(-2, 2, 4001, requires_grad=True)
    outputs = fake_quantize(values, torch.tensor(1.0))
    assert len(outputs.unique()) == 255
    assert float((outputs - values).abs()[1001:3000].max().detach()) <= 0.5 / 127 + 1e-6
    outputs.sum().backward()
    assert values.grad is not None
    assert set(values.grad[1001:3000].tolist()) == {1.0}
    assert set(values.grad[:990].tolist()) == {0.0}


def test_a_range_starts_with_nearly_all_values_inside_and_is_trained() -> None:
    rounding = ActivationRounding()
    values = torch.cat([torch.linspace(0, 1, 99_999), torch.tensor([1000.0])])
    rounding(values)
    assert rounding.largest.item() == pytest.approx(1, rel=0.01)
    rounding(values).sum().backward()
    assert rounding.logarithm.grad is not None
    assert float(rounding.logarithm.grad) > 0  # clipped values pull the range up


@pytest.mark.parametrize("family", list(TINY_MODELS))
@pytest.mark.parametrize("placement", list(PLACEMENTS))
def test_rounded_tensors_exist_in_the_exported_graph(
    placement: str, family: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny(family)
    nodes = PLACEMENTS[placement]
    register_attention()
    encoder = load_encoder(folder, "rounded")
    roundings = round_encoder(encoder, nodes)
    feeds = {"input_ids": np.ones((2, 8), np.int32) * 7, "attention_mask": np.ones((2, 8), np.int32)}
    with torch.no_grad():
        run_encoder(encoder, feeds)
    assert all(rounding.started for rounding in roundings.values())
    graph = onnx.load(str(export_onnx(folder, sha256, shared_cache).path)).graph
    tensors = tensor_ranges(graph, {place: float(r.largest.detach()) for place, r in roundings.items()})
    assert len(tensors) == len(roundings)
    assert sum(hasattr(m, "parametrizations") for m in encoder.modules()) == 2 * sum(
        name in nodes for name in PLACEMENTS["gemm"]
    )


def test_the_error_names_a_place_that_is_not_in_the_graph(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    graph = onnx.load(str(export_onnx(*tiny("bert"), shared_cache).path)).graph
    with pytest.raises(ValueError, match="no node /nowhere"):
        tensor_ranges(graph, {"/nowhere input 0": 1.0})


@pytest.fixture(scope="module")
def coarse(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with larger layer weights. Layers with initial weights hardly change the residual stream."""
    folder = tmp_path_factory.mktemp("coarse")
    for file in tiny("bert")[0].iterdir():
        shutil.copy(file, folder / file.name)
    tensors = load_file(folder / "model.safetensors")
    larger = {name: x * 20 if x.ndim == 2 and ".layer." in name else x for name, x in tensors.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def trained(coarse: Path, shared_cache: ArtifactCache) -> Path:
    digest = digest_of(coarse / "model.safetensors")
    artifact = train(Student(coarse, digest, CHOSEN, TEXTS, 0, "cpu", False, (), shared_cache))
    assert artifact.notes["loss_last"] < 0.8 * artifact.notes["loss_first"]
    return artifact.path.parent


def test_training_changes_the_encoder_and_copies_the_other_files(trained: Path, coarse: Path) -> None:
    before, after = (load_file(folder / "model.safetensors") for folder in (coarse, trained))
    assert set(before) == set(after)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "encoder.layer.0.attention.self.query.weight" in moved
    assert (trained / "config.json").is_file()
    ranges = json.loads((trained / TRAINED_RANGES).read_text())
    assert len(ranges) == 2 * 4  # one range for query, key and value together, and one for each other product
    assert "/encoder/encoder/layer.1/output/LayerNorm/LayerNormalization output 0" not in ranges
    assert min(ranges.values()) > 0


def test_graph_and_plugins_use_the_trained_ranges(trained: Path, shared_cache: ArtifactCache) -> None:
    sha256, ranges = "trained" * 4, json.loads((trained / TRAINED_RANGES).read_text())
    gelu_range = ranges["/encoder/encoder/layer.1/output/dense/MatMul input 0"]
    source = prepare_source(
        trained, sha256, SourceForm(quantized="int8"), *RECIPE, shared_cache, trained / TRAINED_RANGES
    )
    assert source.onnx is not None
    model = onnx.load(str(source.onnx.path))
    product = next(node for node in model.graph.node if node.name == "/encoder/encoder/layer.1/output/dense/MatMul")
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert constants[producers[product.input[0]].input[1]] == pytest.approx(gelu_range / 127, rel=0.01)
    source = prepare_source(
        trained, sha256, SourceForm(arrays=True, ranges=True), *RECIPE, shared_cache, trained / TRAINED_RANGES
    )
    assert source.ranges is not None
    plugin_ranges = json.loads(source.ranges.path.read_text())
    assert plugin_ranges["1/gelu"] == gelu_range
    assert plugin_ranges["1/context"] == ranges["/encoder/encoder/layer.1/attention/output/dense/MatMul input 0"]
    assert plugin_ranges["embeddings"] == ranges["/encoder/embeddings/LayerNorm/LayerNormalization output 0"]
    assert plugin_ranges["1/output"] not in ranges.values()


@pytest.mark.parametrize("exact", [False, True])
def test_fake_quantization_agrees_with_the_qdq_graph(exact: bool, trained: Path, shared_cache: ArtifactCache) -> None:
    """The limit allows for values at the edge of a rounding step. A rounding at another place exceeds it."""
    recipe = replace(CHOSEN, exact_residual=exact)

    source = prepare_source(
        trained,
        "trained" * 4,
        SourceForm(quantized="int8"),
        recipe,
        *RECIPE[1:],
        shared_cache,
        trained / TRAINED_RANGES,
    )
    assert source.onnx is not None
    nodes, ranges = PLACEMENTS["gemm"], json.loads((trained / TRAINED_RANGES).read_text())
    register_attention()
    encoder = load_encoder(trained, "rounded")
    for place, rounding in round_encoder(encoder, nodes, exact=exact).items():
        rounding.logarithm.data, rounding.started = torch.tensor(ranges[place]).log(), True
    ids = np.random.default_rng(0).integers(10, 400, (4, 12)).astype(np.int32)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    with torch.no_grad():
        outputs = run_encoder(encoder, feeds).numpy()
    graph_outputs = rounding_session(source.onnx.path).run(None, feeds)[0]
    fp32_outputs = run_encoder(load_encoder(trained), feeds).detach().numpy()
    assert np.linalg.norm(outputs - graph_outputs) < 0.3 * np.linalg.norm(outputs - fp32_outputs)
    # Each of the two layers has two additions. Their residual input is also read by products.
    model = onnx.load(str(source.onnx.path))
    rounded_tensors = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    sums = [n for n in model.graph.node if n.op_type == "Add" and n.name.endswith("/output/Add")]
    assert len(sums) == 4
    assert sum(bool(rounded_tensors & set(node.input)) for node in sums) == (0 if exact else 4)


def test_plugins_use_the_trained_ranges_of_query_key_and_value(tiny: Tiny, shared_cache: ArtifactCache) -> None:
    nodes, (folder, sha256) = PLACEMENTS["all"], tiny("bert")
    register_attention()
    places = round_encoder(load_encoder(folder, "rounded"), nodes)
    learned = {place: 100.0 + number for number, place in enumerate(places)}
    onnx, batches = (
        export_onnx(folder, sha256, shared_cache),
        lambda: calibration_batches(folder, [], CalibrationSize(8, 16), 0),
    )
    artifact = activation_ranges(onnx, QuantizationOptions(), CalibrationInputs(batches, {}, learned), shared_cache)
    ranges = json.loads(artifact.path.read_text())
    products = "/encoder/encoder/layer.0/attention/self/MatMul"
    assert ranges["0/query"] == learned[f"{products} input 0"]
    assert ranges["0/key"] == learned[f"{products} input 1"]
    assert ranges["0/value"] == learned[f"{products}_1 input 1"]


QKV = ("MatMul input 0", "MatMul input 1", "MatMul_1 input 1")


@pytest.mark.parametrize(
    ("leave_out", "plugins", "removed"),
    [
        (["*layer.1/output/dense/*"], False, ["layer.1/output/dense/MatMul input 0"]),
        # The addition after the block also reads the norm's output, so the norm keeps its place.
        (["*layer.0/intermediate/*"], False, []),
        (["*layer.0/intermediate/*", "*layer.0/output/Add"], False,
         ["layer.0/attention/output/LayerNorm/LayerNormalization output 0", "layer.0/output/dense/Add output 0"]),
        (["*layer.1/attention/self/key/*"], True, []),
        (["*layer.1/attention/self/MatMul"], True, [f"layer.1/attention/self/{place}" for place in QKV]),
    ],
)  # fmt: skip
def test_nodes_of_leave_out_are_not_rounded(
    leave_out: list[str], plugins: bool, removed: list[str], tiny: Tiny
) -> None:
    register_attention()

    def rounding(patterns: list[str]) -> tuple[set[str], set[str], list[bool]]:
        encoder = load_encoder(tiny("bert")[0], "rounded")
        places = set(round_encoder(encoder, PLACEMENTS["all"], plugins, patterns))
        modules = dict(encoder.named_modules())
        rounded_weights = {name for name, module in modules.items() if parametrize.is_parametrized(module)}
        shares = [modules[f"encoder.layer.{n}.attention.self"].rounds_shares for n in (0, 1)]
        return places, rounded_weights, shares

    (all_places, all_weights, _), (places, weights, shares) = rounding([]), rounding(leave_out)
    assert all_places - places == {f"/encoder/encoder/{place}" for place in removed}
    assert places < all_places or not removed
    products = {"*layer.1/attention/self/key/*": 3, "*layer.1/attention/self/MatMul": 0}
    assert len(all_weights - weights) == products.get(leave_out[0], 1)
    assert shares == [True, leave_out != ["*layer.1/attention/self/MatMul"]]


def test_training_for_plugins_and_for_a_graph_gives_different_artifacts(
    coarse: Path, shared_cache: ArtifactCache
) -> None:
    digest, quick = digest_of(coarse / "model.safetensors"), replace(CHOSEN, placement=Placement.all, qat_steps=1)
    artifacts = [
        train(
            Student(coarse, digest, replace(quick, leave_out=nodes), TEXTS, 0, "cpu", plugins, floating, shared_cache)
        )
        for plugins, floating, nodes in (
            (False, (), []), (True, (), []), (True, ("scores", "context"), []), (True, (), ["*layer.1/output/*"])
        )
    ]  # fmt: skip
    assert len({artifact.path for artifact in artifacts}) == 4
    places = [len(json.loads((artifact.path.parent / TRAINED_RANGES).read_text())) for artifact in artifacts]
    # Attention's two products of activations have three ranges in each layer. The last case has no range for the input
    # of the second feed-forward product, and none for the output of the block, because the addition is left out too.
    assert [places[0] - count for count in places] == [0, 0, 6, 2]
