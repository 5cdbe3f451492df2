"""The search for ranges: which ranges it cuts, and that every backend uses the result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from conftest import rounding_session
from safetensors.numpy import load_file, save_file

from backends.base import SourceForm
from backends.cache import ArtifactCache, digest_of
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.int8_learning.distillation_pair import Student, relative_error
from backends.int8_learning.fake_quantization import ActivationRounding
from backends.int8_learning.range_search import CUT_FACTORS, PASSES, cut_ranges, searched_ranges
from backends.onnx_.onnx_source import prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Method, Placement, QuantizationOptions

Tiny = Callable[[str], tuple[Path, str]]
TEXTS = ["a line", "another", "and a third line"]
CHOSEN = QuantizationOptions(placement=Placement.gemm, method=Method.search, samples=8, sequence=24,
                             activation=Activation.int8, reduce_range=Switch.off)  # fmt: skip
GELU = "/encoder/encoder/layer.1/output/dense/MatMul input 0"


def test_the_search_cuts_only_ranges_that_decrease_the_loss() -> None:
    best = {"outliers": 0.3, "even": 1.0, "indifferent": 1.0}
    tried: list[Mapping[str, float]] = []

    def loss(ranges: Mapping[str, float]) -> float:
        tried.append(dict(ranges))
        return 1 + sum(10 * abs(ranges[name] - best[name]) for name in ("outliers", "even"))

    ranges, (first, last) = cut_ranges({"outliers": 1.0, "even": 1.0, "indifferent": 1.0}, loss)
    assert ranges == {"outliers": pytest.approx(0.3), "even": 1.0, "indifferent": 1.0}
    assert (first, last) == (pytest.approx(8), pytest.approx(1))
    assert len(tried) <= 1 + PASSES * 3 * len(CUT_FACTORS)
    # After a cut that is much worse, smaller ranges are not tried.
    assert min(candidate["even"] for candidate in tried) == 0.8


def test_a_cut_that_hardly_decreases_the_loss_is_not_kept() -> None:
    ranges, losses = cut_ranges({"tensor": 1.0}, lambda candidate: 1 + 0.001 * candidate["tensor"])
    assert ranges == {"tensor": 1.0}
    assert losses[0] == losses[1]


def test_the_second_pass_cuts_a_range_after_another_range_was_cut() -> None:
    def loss(ranges: Mapping[str, float]) -> float:
        return 1.0 + ranges["second"] + (ranges["first"] if ranges["second"] < 1 else 1.0)

    ranges, _ = cut_ranges({"first": 1.0, "second": 1.0}, loss)
    assert ranges["first"] < 1
    assert ranges["second"] < 1


def test_a_watching_activation_records_the_largest_value_and_rounds_nothing() -> None:
    rounding = ActivationRounding()
    rounding.observing = True
    for largest in (2.0, 5.0, 3.0):
        values = torch.tensor([0.1234567, -largest])
        assert torch.equal(rounding(values), values)
    assert float(rounding.largest.detach()) == pytest.approx(5.0)
    rounding.observing = False
    assert float(rounding(torch.tensor([0.1234567])).detach()[0]) == pytest.approx(round(0.1234567 / 5 * 127) / 127 * 5)


@pytest.fixture(scope="module")
def outlying(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with one GELU output of 1000 that the next product multiplies by 0."""
    folder, (checkpoint, _) = tmp_path_factory.mktemp("outlying"), tiny("bert")
    for file in checkpoint.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(checkpoint / "model.safetensors")
    tensors = {name: x * 20 if x.ndim == 2 and ".layer." in name else x for name, x in tensors.items()}
    tensors["encoder.layer.1.intermediate.dense.bias"][3] = 1000
    tensors["encoder.layer.1.output.dense.weight"][:, 3] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def student(folder: Path, cache: ArtifactCache, **changes: Any) -> Student:
    return Student(
        folder, digest_of(folder / "model.safetensors"), replace(CHOSEN, **changes), TEXTS, 0, "cpu", False, (), cache
    )


def test_an_outlier_without_effect_is_cut_off(outlying: Path, shared_cache: ArtifactCache) -> None:
    searched = searched_ranges(student(outlying, shared_cache))
    ranges = json.loads(searched.path.read_text())
    assert len(ranges) == 2 * 4
    assert ranges[GELU] < 250
    assert searched.notes["loss_last"] < 0.9 * searched.notes["loss_first"]


def test_graph_and_plugins_use_the_searched_ranges(outlying: Path, shared_cache: ArtifactCache) -> None:
    from backends.model.checkpoint import run_encoder

    pair = student(outlying, shared_cache)
    searched = searched_ranges(pair)
    gelu_range = json.loads(searched.path.read_text())[GELU]
    checkpoint = (outlying, pair.identity)
    recipe = (CHOSEN, TEXTS, 0, shared_cache, searched.path)
    source = prepare_source(*checkpoint, SourceForm(quantized="int8"), *recipe)
    assert source.onnx is not None
    model = onnx.load(str(source.onnx.path))
    producers = {output: node for node in model.graph.node for output in node.output}
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    product = next(node for node in model.graph.node if node.name == GELU.partition(" ")[0])
    assert constants[producers[product.input[0]].input[1]] == pytest.approx(gelu_range / 127, rel=0.01)
    ranges = prepare_source(*checkpoint, SourceForm(arrays=True, ranges=True), *recipe).ranges
    assert ranges is not None
    assert json.loads(ranges.path.read_text())["1/gelu"] == gelu_range
    # The outputs of the graph are closer to FP32 than those of a graph with min-max ranges.
    minmax_recipe = replace(CHOSEN, method=Method.minmax)
    minmax_source = prepare_source(*checkpoint, SourceForm(quantized="int8"), minmax_recipe, *recipe[1:4])
    assert minmax_source.onnx is not None
    teacher, _, _ = pair.load()
    (feeds, *_) = calibration_batches(outlying, TEXTS, CalibrationSize(8, 24), 1)
    with torch.no_grad():
        targets = run_encoder(teacher, feeds)
    losses = []
    for path in (source.onnx.path, minmax_source.onnx.path):
        (outputs,) = rounding_session(path).run(None, feeds)
        losses.append(float(relative_error(torch.from_numpy(outputs), targets, feeds)))
    assert losses[0] < 0.9 * losses[1]
