from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODELS, Cli, json_of, table_in

from backends.base import Shape
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.model.checkpoint import load_encoder
from backends.onnx_.marked_outputs import MARKABLE_POINTS, marked_points, prepare_marked
from backends.onnx_.onnx_source import export_onnx
from backends.torch_.marked_modules import MarkedEncoder
from suites.layers.measure import compared_layer
from suites.layers.result import Layer, LayerErrors
from suites.layers.suite import first_above
from suites.records.results_folder import read_records
from suites.tables.markdown import without_legend

Tiny = Callable[[str], tuple[Path, str]]
QUICK = ("suite=layers", "backend=ort", "device=cpu", "weights=random", "batch=[4]", "sequence=[32]", "lengths=uniform")
SIZES = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
SMALL = f"model.architecture={{model_type: bert, {SIZES}}}"


@pytest.mark.parametrize("family", TINY_MODELS)
def test_points_are_in_the_order_of_computation(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    points = marked_points(export_onnx(*tiny(family), shared_cache))
    assert points == ["embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in MARKABLE_POINTS[1:])]


def test_differences_are_measured_and_the_first_is_found() -> None:
    reference = np.asarray([[3.0, 4.0], [0.0, 2.0]])
    same = compared_layer("a", reference, reference)
    assert (same.nonfinite, same.errors) == (0, LayerErrors(0.0, 0.0, pytest.approx(1.0)))
    off = compared_layer("b", reference * [[1.0, 1.0], [1.0, 2.0]], reference)
    assert off.errors is not None
    assert off.errors.max_difference == 2.0
    assert off.errors.relative_error == pytest.approx(2 / np.sqrt(29))
    broken = compared_layer("c", np.asarray([[np.nan, np.inf], [0.0, 2.0]]), reference)
    assert broken == Layer("c", 2)
    layers = [same, off, broken]
    assert first_above(layers, 0.1) == "b"
    assert first_above(layers, 0.5) == "c"
    assert first_above(layers[:1], 0.1) == ""


def test_fp32_has_small_errors_and_int8_large_errors_for_any_chunk(fast_cli: Cli, tmp_path: Path) -> None:
    assert fast_cli(*QUICK, SMALL, "precision=fp32", "layers.chunk=100").returncode == 0
    for chunk in (4, 100):
        done = fast_cli(*QUICK, SMALL, "precision=int8", f"layers.chunk={chunk}", "layers.threshold=1e-4")
        assert done.returncode == 0, done.stderr
    exact, *quantized = sorted(read_records(tmp_path / "results", "layers"), key=lambda r: r.cell.precision)
    assert json_of(exact)["scores"]["first"] == ""
    assert len(json_of(exact)["scores"]["layers"]) == 11
    assert all(layer["relative_error"] < 1e-5 for layer in json_of(exact)["scores"]["layers"])
    for record in quantized:
        assert json_of(record)["scores"]["first"] == "0/attended"
        assert [layer["point"] for layer in json_of(record)["scores"]["layers"]] == [
            x["point"] for x in json_of(exact)["scores"]["layers"]
        ]
    errors = [[layer["relative_error"] for layer in json_of(record)["scores"]["layers"]] for record in quantized]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    table = without_legend(table_in(tmp_path / "results", "layers").read_text())
    assert table.count("**first above the threshold**") == 2
    assert "; 2 layers; " in table
    # A reused record is judged by the new threshold.
    assert fast_cli(*QUICK, SMALL, "precision=int8", "layers.chunk=100", "layers.threshold=1e9").returncode == 0
    firsts = {json_of(record)["scores"]["first"] for record in read_records(tmp_path / "results", "layers")}
    assert firsts == {"", "0/attended"}
    assert sorted(json_of(r)["scores"]["threshold"] for r in read_records(tmp_path / "results", "layers"))[-1] == 1e9
    assert "First output with a relative error above 0.05: none." in table


@pytest.mark.parametrize("family", TINY_MODELS)
def test_pytorch_modules_correspond_to_nodes_of_the_graph(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny(family)
    onnx = export_onnx(folder, sha256, shared_cache)
    points = marked_points(onnx)
    lengths = Lengths(tokens="random")
    marked = prepare_marked(InputSource(folder, sha256, lengths, [], 0, "cpu", shared_cache), onnx, points, Shape(2, 8))
    arrays = np.load(marked.path)
    inputs = {name.partition("/")[2]: torch.tensor(arrays[name]) for name in arrays.files if name.startswith("feeds/")}
    inputs["attention_mask"] = inputs["attention_mask"].bool()
    with torch.inference_mode():
        found = MarkedEncoder(load_encoder(folder), points)(**inputs).last_hidden_state
    assert np.abs(found.numpy() - arrays["reference"]).max() < 1e-5
    with pytest.raises(ValueError, match="no module's output is 0/probs"):
        MarkedEncoder(load_encoder(folder), ["0/probs"])


def test_pytorch_layers_are_compared_through_the_pipeline(fast_cli: Cli, tmp_path: Path) -> None:
    done = fast_cli(*QUICK[:1], "backend=torch_eager", "precision=bf16", *QUICK[2:], SMALL, "layers.chunk=4",
               "layers.threshold=1e-4")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (record,) = read_records(tmp_path / "results", "layers")
    assert len(json_of(record)["scores"]["layers"]) == 11
    assert json_of(record)["scores"]["first"] == "embeddings"
    assert all(1e-4 < layer["relative_error"] < 0.05 for layer in json_of(record)["scores"]["layers"])


def test_a_backend_that_cannot_mark_layers_is_unsupported(fast_cli: Cli, tmp_path: Path) -> None:
    refused = fast_cli("suite=layers", "backend=null", "device=cpu")
    assert refused.returncode == 2
    assert "backend=null runs no model" in refused.stderr
    assert fast_cli(*QUICK[:1], "backend=torch_packed", *QUICK[2:], SMALL).returncode == 0
    (record,) = read_records(tmp_path / "results", "layers")
    assert record.outcome == "unsupported"
    assert record.reason == "backend=torch_packed returns only the last output; use a backend that marks layers"
