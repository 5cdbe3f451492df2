"""The ONNX file of a checkpoint in the form that a backend asks for, and inputs to calibrate it with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.base import Array, Artifact, OnnxForm, Source, versions_of
from backends.cache import ArtifactCache
from backends.inputs import calibration_batches
from backends.quantize import quantize_onnx
from backends.surgery import operate
from backends.typed import cast_onnx


def prepare_source(
    folder: Path,
    weights_sha256: str,
    form: OnnxForm,
    quantization: Mapping[str, Any],
    texts: Sequence[str],
    seed: int,
    cache: ArtifactCache,
) -> Source:
    """Exported, quantized and cast as `form` says, each step from the cache where it was made before.

    Args:
        quantization: suites/config.py's QuantizationConfig; read only where `form` quantizes or calibrates.
        texts: what calibration sequences are made of where the checkpoint has a tokenizer.
    """
    onnx = export_onnx(folder, weights_sha256, cache)
    if form.rewrites:
        onnx = operate(onnx, form.rewrites, cache)
    calibration = None
    if form.quantized or form.calibration:
        made_from = {"texts": list(texts), "seed": seed, "weights": weights_sha256}
        sizes = {name: quantization[name] for name in ("samples", "sequence")}

        def batches() -> list[dict[str, Array]]:
            return calibration_batches(folder, texts, seed=seed, **sizes)

        if form.quantized:
            onnx = quantize_onnx(onnx, form.quantized, quantization, batches, made_from, cache)
        if form.calibration:
            calibration = _stacked(batches(), {**made_from, **sizes}, cache)
    if form.types != "fp32":
        onnx = cast_onnx(onnx, form.types, form.keep_fp32, cache)
    return Source(folder, weights_sha256, onnx, calibration)


def export_onnx(folder: Path, weights_sha256: str, cache: ArtifactCache) -> Artifact:
    """The FP32 ONNX file of the checkpoint in `folder`, from the cache or exported and checked now."""

    def build(path: Path) -> Mapping[str, Any]:
        # Importing torch takes seconds, which a cell whose artifacts are all there need not spend.
        from backends.export import export

        return export(folder, path)

    key = {"weights": weights_sha256, "config": (folder / "config.json").read_text(), "form": 2}
    return cache.get("onnx", key, "model.onnx", build, versions_of(("torch", "transformers", "onnx")))


def _stacked(batches: Sequence[Mapping[str, Array]], key: Mapping[str, Any], cache: ArtifactCache) -> Artifact:
    """All batches, which have one shape, as one array an input."""

    def build(path: Path) -> None:
        arrays = {name: np.stack([feeds[name] for feeds in batches]) for name in batches[0]}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle

    return cache.get("calibration", key, "inputs.npz", build, versions_of(("numpy", "transformers")))
