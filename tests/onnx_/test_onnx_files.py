"""Models whose weights do not fit into one protobuf message. The tests lower the limit, so that a tiny model exceeds
it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from conftest import TINY_MODELS

from backends.base import Artifact, SourceForm, Unsupported
from backends.cache import ArtifactCache
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.json_codec import from_json
from backends.model.checkpoint import find_checkpoint
from backends.model.reference import ModelReference
from backends.onnx_ import onnx_files
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.marked_outputs import mark_onnx, marked_points
from backends.onnx_.onnx_source import export_onnx, prepare_source
from backends.quantization_options import Method, QuantizationOptions

Tiny = Callable[[str], tuple[Path, str]]

FEEDS = {
    "input_ids": np.arange(5, 37, dtype=np.int32).reshape(2, 16),
    "attention_mask": np.ones((2, 16), np.int32),
    "token_type_ids": np.zeros((2, 16), np.int32),
}


def run(artifact: Artifact) -> Any:
    session = onnxruntime.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    return session.run(None, FEEDS)[0]


RECIPE = {"placement": "gemm", "activation": "int8", "reduce_range": "off"}


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(onnx_files, "MOST_BYTES", 100_000)


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> tuple[ArtifactCache, ArtifactCache]:
    """Return a cache for small files and a cache for large files."""
    return ArtifactCache(tmp_path_factory.mktemp("small")), ArtifactCache(tmp_path_factory.mktemp("large"))


def test_a_large_encoder_is_exported_with_its_weights_in_a_second_file(
    tiny: Tiny, caches: tuple[ArtifactCache, ArtifactCache], lowered: Callable[[], None]
) -> None:
    whole = export_onnx(*tiny("bert"), caches[0])
    lowered()
    parted = export_onnx(*tiny("bert"), caches[1])
    assert not onnx_files.is_large(whole.path)
    assert {file.name for file in parted.path.parent.iterdir()} == {"model.onnx", "model.onnx.data", "artifact.json"}
    assert parted.path.stat().st_size < 100_000 < onnx_files.data_file(parted.path).stat().st_size
    np.testing.assert_array_equal(run(whole), run(parted))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "percentile"},
        {"method": "entropy", "samples": 8},
        {"exact_residual": True, "placement": "all"},
        {"smooth": 0.5},
        {"shift": True, "activation": "int8"},
        {"leave_out": ["*"]},
    ],
    ids=lambda options: " ".join(options) or "minmax",
)
def test_a_large_encoder_is_quantized_like_a_small_encoder(
    options: dict[str, Any],
    tiny: Tiny,
    caches: tuple[ArtifactCache, ArtifactCache],
    lowered: Callable[[], None],
) -> None:
    chosen = from_json(QuantizationOptions, {**RECIPE, "activation": "uint8", "samples": 16, "sequence": 16, **options})
    folder, sha256 = tiny("bert")

    def made(cache: ArtifactCache) -> Artifact:
        source = prepare_source(folder, sha256, SourceForm(quantized="int8"), chosen, [], 0, cache)
        assert source.onnx is not None
        return source.onnx

    small = made(caches[0])
    lowered()
    large = made(caches[1])
    assert onnx_files.is_large(large.path)
    assert small.notes == large.notes
    np.testing.assert_array_equal(run(small), run(large))


def test_outputs_of_layers_of_a_large_encoder_are_marked(
    tiny: Tiny, caches: tuple[ArtifactCache, ArtifactCache], lowered: Callable[[], None]
) -> None:
    outputs = []
    for cache, lower in zip(caches, (lambda: None, lowered), strict=True):
        lower()
        source = export_onnx(*tiny("bert"), cache)
        outputs.append(run(mark_onnx(source, marked_points(source)[:3], cache)))
    np.testing.assert_array_equal(*outputs)


def test_two_large_models_of_one_architecture_have_different_digests(
    caches: tuple[ArtifactCache, ArtifactCache], lowered: Callable[[], None]
) -> None:
    """Their graphs are equal, so the cache must not return an artifact of one model for the other."""
    lowered()
    models = [
        find_checkpoint(ModelReference("random", seed=seed, architecture=TINY_MODELS["bert"]), caches[1])
        for seed in (0, 1)
    ]
    first, second = (export_onnx(model.folder, model.identity, caches[1]) for model in models)
    assert first.sha256 != second.sha256
    points = marked_points(first)[:1]
    assert mark_onnx(first, points, caches[1]).path != mark_onnx(second, points, caches[1]).path


def test_variants_that_a_large_model_cannot_have_are_unsupported(
    tiny: Tiny, caches: tuple[ArtifactCache, ArtifactCache], lowered: Callable[[], None]
) -> None:
    lowered()
    folder, sha256 = tiny("bert")
    usual = from_json(QuantizationOptions, RECIPE)
    for form, says in (
        (SourceForm(types="fp16"), "above 2 GB is not converted to fp16"),
        (SourceForm(quantized="fp8"), "above 2 GB is not quantized to FP8"),
    ):
        with pytest.raises(Unsupported, match=says):
            prepare_source(folder, sha256, form, usual, [], 0, caches[1])


@pytest.mark.parametrize("options", [{"smooth": 0.5}, {"shift": True}])
def test_a_single_tensor_above_the_limit_is_named(
    options: dict[str, Any],
    tiny: Tiny,
    caches: tuple[ArtifactCache, ArtifactCache],
    lowered: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lowered()
    monkeypatch.setattr(onnx_files, "LARGEST_TENSOR", 1_000_000)
    folder, sha256 = tiny("bert")
    chosen = from_json(QuantizationOptions, {**RECIPE, "samples": 9, **options})
    with pytest.raises(Unsupported, match=r"word_embeddings\.weight alone is above 2 GB"):
        prepare_source(folder, sha256, SourceForm(quantized="int8"), chosen, [], 0, caches[1])


def test_ranges_of_a_large_model_equal_those_of_a_small_model(
    tiny: Tiny, caches: tuple[ArtifactCache, ArtifactCache], lowered: Callable[[], None]
) -> None:
    from backends.onnx_.ranges import activation_ranges

    folder, sha256 = tiny("bert")
    ranges = []
    for cache, lower in zip(caches, (lambda: None, lowered), strict=True):
        lower()
        onnx = export_onnx(folder, sha256, cache)
        batches = lambda: calibration_batches(folder, [], CalibrationSize(8, 16), 0)  # noqa: E731
        artifact = activation_ranges(
            onnx,
            QuantizationOptions(method=Method.percentile, percentile=99.9, leave_out=["*layer.0/intermediate*"]),
            CalibrationInputs(batches),
            cache,
        )
        ranges.append((json.loads(artifact.path.read_text()), artifact.notes))
    assert ranges[0] == ranges[1]
    assert not list(caches[1].root.glob("*/.calibration-*"))
