"""Activation ranges at the points of plugins: points of each family, calibration methods, and excluded operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY_MODELS

from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.model.checkpoint import load_encoder, run_encoder
from backends.model.layer_names import POINTS
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.onnx_source import export_onnx
from backends.onnx_.quantize import quantize_onnx
from backends.onnx_.ranges import PLUGIN_OPERATIONS, activation_ranges, points_of
from backends.options import Switch
from backends.quantization_options import Activation, Method, Placement, QuantizationOptions

Tiny = Callable[[str], tuple[Path, str]]


@pytest.mark.parametrize("family", TINY_MODELS)
def test_every_family_has_every_point(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny(family)
    onnx = export_onnx(folder, sha256, shared_cache)

    def batches() -> list[dict[str, np.ndarray]]:
        return calibration_batches(folder, [], CalibrationSize(8, 16), 0)

    ranges = json.loads(
        activation_ranges(
            onnx, QuantizationOptions(), CalibrationInputs(batches, {"family": family}), shared_cache
        ).path.read_text()
    )
    assert set(ranges) == {"embeddings", *(f"{i}/{point}" for i in (0, 1) for point in POINTS if point != "embeddings")}
    (feeds,) = batches()
    encoder = load_encoder(folder)
    with torch.inference_mode():
        last = run_encoder(encoder, {name: feeds[name] for name in feeds}).abs().max().item()
    assert ranges["1/output"] == pytest.approx(last, rel=1e-3)
    assert len({ranges[f"0/{point}"] for point in ("query", "key", "value")}) == 3


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_ranges_of_other_methods_are_smaller_than_those_of_minmax(
    method: str, tiny: Tiny, shared_cache: ArtifactCache
) -> None:
    folder, sha256 = tiny("bert")
    onnx = export_onnx(folder, sha256, shared_cache)

    def ranges(method: str) -> dict[str, float]:
        batches = lambda: calibration_batches(folder, [], CalibrationSize(16, 16), 0)  # noqa: E731
        artifact = activation_ranges(
            onnx, QuantizationOptions(method=Method[method], percentile=99.0), CalibrationInputs(batches), shared_cache
        )
        by_point: dict[str, float] = json.loads(artifact.path.read_text())
        return by_point

    cut, whole = ranges(method), ranges("minmax")
    assert set(cut) == set(whole)
    assert all(0 < cut[point] <= whole[point] * 1.01 for point in whole)
    probabilities = {point for point in whole if point.endswith("/probs")}
    assert len(probabilities) == 2
    assert all(cut[point] == whole[point] for point in probabilities)
    assert all(cut[point] < whole[point] for point in {*whole} - probabilities if method == "percentile")
    assert any(cut[point] < whole[point] * 0.95 for point in whole)


@pytest.mark.parametrize("family", TINY_MODELS)
def test_nodes_of_leave_out_exclude_operations_of_plugins(family: str, tiny: Tiny, shared_cache: ArtifactCache) -> None:
    folder, sha256 = tiny(family)
    onnx = export_onnx(folder, sha256, shared_cache)
    batches = lambda: calibration_batches(folder, [], CalibrationSize(8, 16), 0)  # noqa: E731
    for patterns, operations in (
        (["*layer.1/*"], [f"1/{computed}" for computed in sorted(PLUGIN_OPERATIONS)]),
        (["*layer.0/attention/*"], ["0/attended", "0/attention", "0/qkv"]),
        ([], []),
    ):
        artifact = activation_ranges(
            onnx, QuantizationOptions(leave_out=patterns), CalibrationInputs(batches), shared_cache
        )
        assert artifact.notes["left"] == operations
    with pytest.raises(ValueError, match="matches none"):
        activation_ranges(
            onnx,
            QuantizationOptions(leave_out=["*layer.7*"]),
            CalibrationInputs(batches),
            shared_cache,
        )


def test_calibration_writes_no_files_next_to_the_model(tiny: Tiny, tmp_path: Path) -> None:
    """onnxruntime writes model-inferred.onnx next to its model. A folder of that name makes this fail."""
    folder, sha256 = tiny("bert")
    cache = ArtifactCache(tmp_path)
    onnx = export_onnx(folder, sha256, cache)
    onnx.path.with_name(f"{onnx.path.stem}-inferred.onnx").mkdir()
    batches = lambda: calibration_batches(folder, [], CalibrationSize(8, 16), 0)  # noqa: E731
    options = QuantizationOptions(placement=Placement.gemm, activation=Activation.int8, reduce_range=Switch.off)
    assert activation_ranges(onnx, options, CalibrationInputs(batches), cache).path.exists()
    assert quantize_onnx(onnx, "int8", options, CalibrationInputs(batches), cache).path.exists()


def test_a_changed_node_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="0/attended"):
        points_of(
            [("/encoder/layer.0/attention/self/query/Add", "q"), ("/embeddings/LayerNorm/LayerNormalization", "e")]
        )
    with pytest.raises(ValueError, match="lacks"):
        points_of([("/nothing", "n")])
