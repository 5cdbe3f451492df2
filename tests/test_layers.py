from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_MODELS, Cli

from backends.cache import ArtifactCache
from backends.marks import MARKED, marked_points
from backends.onnx_source import export_onnx
from suites.layers import compared, first_past
from suites.record import read_records

Tiny = Callable[[str], tuple[Path, str]]
QUICK = ("suite=layers", "backend=ort", "device=cpu", "weights=random", "batch=[4]", "sequence=[32]", "lengths=uniform")


@pytest.mark.parametrize("family", TINY_MODELS)
def test_points_stand_in_the_order_of_computing(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    points = marked_points(export_onnx(*tiny(family), shared_cache))
    assert points == ["embeddings", *(f"{layer}/{point}" for layer in (0, 1) for point in MARKED[1:])]


def test_a_difference_is_measured_and_the_first_one_found() -> None:
    reference = np.asarray([[3.0, 4.0], [0.0, 2.0]])
    same, off = compared(reference, reference), compared(reference * [[1.0, 1.0], [1.0, 2.0]], reference)
    assert same == {"nonfinite": 0, "max_difference": 0.0, "relative_error": 0.0, "cosine_min": pytest.approx(1.0)}
    assert off["max_difference"] == 2.0
    assert off["relative_error"] == pytest.approx(2 / np.sqrt(29))
    broken = compared(np.asarray([[np.nan, np.inf], [0.0, 2.0]]), reference)
    assert broken == {"nonfinite": 2}
    layers = [{"point": "a", **same}, {"point": "b", **off}, {"point": "c", **broken}]
    assert first_past(layers, 0.1) == "b"
    assert first_past(layers, 0.5) == "c"
    assert first_past(layers[:1], 0.1) == ""


def test_fp32_stays_near_and_int8_leaves_it_whatever_the_chunk(cli: Cli, tmp_path: Path) -> None:
    sizes = "num_hidden_layers: 2, hidden_size: 64, num_attention_heads: 2, intermediate_size: 128"
    small = f"model.architecture={{model_type: bert, {sizes}}}"
    assert cli(*QUICK, small, "precision=fp32", "layers.chunk=100").returncode == 0
    for chunk in (4, 100):
        done = cli(*QUICK, small, "precision=int8", f"layers.chunk={chunk}", "layers.threshold=1e-4")
        assert done.returncode == 0, done.stderr
    exact, *quantized = sorted(read_records(tmp_path / "results", "layers"), key=lambda r: r.cell.precision)
    assert exact.scores["first"] == ""
    assert len(exact.scores["layers"]) == 11
    assert all(layer["relative_error"] < 1e-5 for layer in exact.scores["layers"])
    for record in quantized:
        assert record.scores["first"] == "0/attended"
        assert [layer["point"] for layer in record.scores["layers"]] == [x["point"] for x in exact.scores["layers"]]
    errors = [[layer["relative_error"] for layer in record.scores["layers"]] for record in quantized]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)
    table = (tmp_path / "results" / "tables" / "layers.md").read_text()
    assert table.count("**first past the threshold**") == 2
    assert "First past a relative error of 0.05: none." in table


@pytest.mark.parametrize("backend", ["torch_eager", "null"])
def test_a_backend_without_a_graph_is_refused(backend: str, cli: Cli) -> None:
    refused = cli("suite=layers", f"backend={backend}", "device=cpu")
    assert refused.returncode == 2
    assert "suite=layers marks outputs of a graph" in refused.stderr
