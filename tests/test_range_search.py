"""Ranges that are searched: which are cut, what of, and that every path takes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from conftest import rounding_session
from safetensors.numpy import load_file, save_file

from backends.base import SourceForm
from backends.cache import ArtifactCache, digest_of
from backends.inputs import calibration_batches
from backends.onnx_source import prepare_source
from backends.range_search import PASSES, SHARES, search, searched_ranges
from backends.rounding import Activation
from backends.student import Student, distance
from suites.config import QuantizationConfig, plain

Tiny = Callable[[str], tuple[Path, str]]
TEXTS = ["a line", "another", "and a third line"]
CHOSEN: dict[str, Any] = {**plain(vars(QuantizationConfig(samples=8, sequence=24))), "placement": "gemm",
                          "method": "search", "activation": "int8", "reduce_range": False}  # fmt: skip
GELU = "/encoder/encoder/layer.1/output/dense/MatMul input 0"


def test_what_serves_the_loss_is_cut_and_the_rest_is_left() -> None:
    best = {"outliers": 0.3, "even": 1.0, "indifferent": 1.0}
    tried: list[Mapping[str, float]] = []

    def loss(ranges: Mapping[str, float]) -> float:
        tried.append(dict(ranges))
        return 1 + sum(10 * abs(ranges[name] - best[name]) for name in ("outliers", "even"))

    found, (first, last) = search({"outliers": 1.0, "even": 1.0, "indifferent": 1.0}, loss)
    assert found == {"outliers": pytest.approx(0.3), "even": 1.0, "indifferent": 1.0}
    assert (first, last) == (pytest.approx(8), pytest.approx(1))
    assert len(tried) <= 1 + PASSES * 3 * len(SHARES)
    # What makes things much worse is not followed further down.
    assert min(ranges["even"] for ranges in tried) == 0.8


def test_what_saves_next_to_nothing_is_left() -> None:
    found, losses = search({"one": 1.0}, lambda ranges: 1 + 0.001 * ranges["one"])
    assert found == {"one": 1.0}
    assert losses[0] == losses[1]


def test_a_later_pass_cuts_what_another_cut_made_room_for() -> None:
    def loss(ranges: Mapping[str, float]) -> float:
        return 1.0 + ranges["second"] + (ranges["first"] if ranges["second"] < 1 else 1.0)

    found, _ = search({"first": 1.0, "second": 1.0}, loss)
    assert found["first"] < 1
    assert found["second"] < 1


def test_a_rounding_that_watches_takes_the_largest_of_all_batches_and_rounds_nothing() -> None:
    rounding = Activation()
    rounding.watching = True
    for largest in (2.0, 5.0, 3.0):
        values = torch.tensor([0.1234567, -largest])
        assert torch.equal(rounding(values), values)
    assert float(rounding.largest.detach()) == pytest.approx(5.0)
    rounding.watching = False
    assert float(rounding(torch.tensor([0.1234567])).detach()[0]) == pytest.approx(round(0.1234567 / 5 * 127) / 127 * 5)


@pytest.fixture(scope="module")
def outlying(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint in which one unit of the last GELU is a thousand and read by nobody."""
    folder, (given, _) = tmp_path_factory.mktemp("outlying"), tiny("bert")
    for file in given.iterdir():
        if file.name != "model.safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    tensors = load_file(given / "model.safetensors")
    tensors = {name: x * 20 if x.ndim == 2 and ".layer." in name else x for name, x in tensors.items()}
    tensors["encoder.layer.1.intermediate.dense.bias"][3] = 1000
    tensors["encoder.layer.1.output.dense.weight"][:, 3] = 0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def student(folder: Path, cache: ArtifactCache, **changes: Any) -> Student:
    return Student(
        folder, digest_of(folder / "model.safetensors"), {**CHOSEN, **changes}, TEXTS, 0, "cpu", False, (), cache
    )


def test_an_outlier_that_nobody_reads_is_cut_off(outlying: Path, shared_cache: ArtifactCache) -> None:
    searched = searched_ranges(student(outlying, shared_cache))
    ranges = json.loads(searched.path.read_text())
    assert len(ranges) == 2 * 4
    assert ranges[GELU] < 250
    assert searched.notes["loss_last"] < 0.9 * searched.notes["loss_first"]


def test_searched_ranges_are_those_of_the_graph_and_of_the_plugins(outlying: Path, shared_cache: ArtifactCache) -> None:
    from backends.checkpoint import run_encoder

    one = student(outlying, shared_cache)
    searched = searched_ranges(one)
    wanted = json.loads(searched.path.read_text())[GELU]
    given = (outlying, one.identity)
    rest = (CHOSEN, TEXTS, 0, shared_cache, searched.path)
    source = prepare_source(*given, SourceForm(quantized="int8"), *rest)
    assert source.onnx is not None
    model = onnx.load(str(source.onnx.path))
    makers = {output: node for node in model.graph.node for output in node.output}
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    product = next(node for node in model.graph.node if node.name == GELU.partition(" ")[0])
    assert constants[makers[product.input[0]].input[1]] == pytest.approx(wanted / 127, rel=0.01)
    ranges = prepare_source(*given, SourceForm(arrays=True, ranges=True), *rest).ranges
    assert ranges is not None
    assert json.loads(ranges.path.read_text())["1/gelu"] == wanted
    # The graph comes closer to FP32 than one with the ranges of min-max.
    plain_source = prepare_source(*given, SourceForm(quantized="int8"), {**CHOSEN, "method": "minmax"}, *rest[1:4])
    assert plain_source.onnx is not None
    teacher, _, _ = one.load()
    (feeds, *_) = calibration_batches(outlying, TEXTS, 8, 24, seed=1)
    with torch.no_grad():
        goal = run_encoder(teacher, feeds)
    losses = []
    for path in (source.onnx.path, plain_source.onnx.path):
        (found,) = rounding_session(path).run(None, feeds)
        losses.append(float(distance(torch.from_numpy(found), goal, feeds)))
    assert losses[0] < 0.9 * losses[1]
