"""Source of a build in the format that a backend requests: an ONNX file or plain weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from backends.base import Artifact, Source, SourceForm, versions_of
from backends.cache import ArtifactCache
from backends.config_key import cell_mapping
from backends.inputs.calibration_sequences import CalibrationSize, calibration_batches
from backends.inputs.lengths import Lengths
from backends.json_codec import from_json
from backends.model.identity import weights_digest
from backends.model.layer_names import WEIGHT_PRODUCTS
from backends.model.weights import encoder_weights
from backends.model_output import LAST_HIDDEN, Output
from backends.onnx_.calibration import CalibrationInputs
from backends.onnx_.dynamic_int8 import quantize_dynamic_int8
from backends.onnx_.gelu_shift import SHIFTED_RANGES, shift_onnx
from backends.onnx_.linear_ranges import linear_ranges
from backends.onnx_.onnx_casts import cast_onnx
from backends.onnx_.quantize import quantize_onnx
from backends.onnx_.ranges import activation_ranges
from backends.onnx_.smoothquant import fold_arrays, smooth_onnx
from backends.onnx_.surgery import apply_rewrites
from backends.quantization_options import Method, QuantizationOptions


def prepare_source(
    folder: Path,
    identity: str,
    form: SourceForm,
    quantization: QuantizationOptions,
    texts: Sequence[str],
    seed: int,
    cache: ArtifactCache,
    learned: Path | None = None,
    lengths: Lengths | None = None,
    output: Output = LAST_HIDDEN,
) -> Source:
    """Return what `form` requests: an ONNX file (exported, rewritten, quantized, cast), plain weights, or ranges only.

    The result of each step is cached.

    Args:
        folder: folder of the checkpoint.
        identity: identity of the checkpoint, see backends/model/identity.py.
        quantization: used only if `form` quantizes or calibrates.
        texts: texts of the calibration sequences, if the checkpoint has a tokenizer.
        seed: seed of the calibration sequences without a tokenizer.
        learned: a JSON file of ranges by place in the graph (see backends/int8_learning/fake_quantization.py). They
            replace calibrated ranges.
        lengths: lengths of calibration sequences; None for sequences of 1 to 4 sentences.
        output: output of the model.
    """
    made_from = {"texts": list(texts), "seed": seed, "checkpoint": identity}
    if quantization.method is Method.search:
        # For the ranges that the search does not cover, such as the attention probabilities.
        quantization = replace(quantization, method=Method.minmax)
    sizes = {n: size for n, size in cell_mapping(quantization).items() if n in ("samples", "sequence", "tokens")}
    size = replace(from_json(CalibrationSize, sizes), lengths=lengths)
    if lengths:
        sizes["lengths"] = lengths.settings()
    trained = json.loads(learned.read_text(encoding="utf-8")) if learned else {}
    calibration = CalibrationInputs(
        lambda: calibration_batches(folder, texts, size, seed), {**made_from, **sizes}, trained
    )
    stacked = _stacked(calibration, cache) if form.calibration else None
    if form.arrays or form.linear_ranges:
        arrays = encoder_weights(folder, identity, cache, output) if form.arrays else None
        ranges = linear_ranges(folder, identity, calibration, cache) if form.linear_ranges else None
        if arrays and form.ranges:
            onnx = export_onnx(folder, identity, cache)
            if alpha := quantization.smooth:
                onnx = smooth_onnx(onnx, alpha, ("attention_output",), calibration, cache)
                arrays = fold_arrays(arrays, onnx, cache)
            ranges = activation_ranges(onnx, quantization, calibration, cache)
        return Source(folder, weights_digest(folder, cache.root), None, stacked, arrays, ranges)
    onnx = export_onnx(folder, identity, cache, output)
    if form.rewrites:
        onnx = apply_rewrites(onnx, form.rewrites, cache)
    if form.quantized:
        onnx = _quantized(onnx, form.quantized, quantization, calibration, cache)
    if form.types != "fp32":
        onnx = cast_onnx(onnx, form.types, form.keep_fp32, cache)
    return Source(folder, weights_digest(folder, cache.root), onnx, stacked)


def _quantized(
    onnx: Artifact, kind: str, quantization: QuantizationOptions, calibration: CalibrationInputs, cache: ArtifactCache
) -> Artifact:
    """Apply SmoothQuant and the shift of GELU if the recipe has them, then insert Q/DQ; or quantize dynamically."""
    if quantization.dynamic:
        return quantize_dynamic_int8(onnx, quantization, cache)
    if alpha := quantization.smooth:
        onnx = smooth_onnx(onnx, alpha, tuple(WEIGHT_PRODUCTS), calibration, cache)
    if quantization.shift:
        onnx = shift_onnx(onnx, quantization.per_channel, quantization.leave_out, calibration, cache)
        shifted = json.loads(onnx.path.with_name(SHIFTED_RANGES).read_text(encoding="utf-8"))
        calibration = replace(calibration, trained={**calibration.trained, **shifted})
    return quantize_onnx(onnx, kind, quantization, calibration, cache)


def export_onnx(folder: Path, identity: str, cache: ArtifactCache, output: Output = LAST_HIDDEN) -> Artifact:
    """Export the checkpoint in `folder` as an FP32 ONNX file with this output, and check it. The result is cached."""

    def build(path: Path) -> Mapping[str, object]:
        # The import of torch takes seconds. A cell with cached artifacts does not need it.
        from backends.onnx_.export_graph import export

        return export(folder, path, output)

    key = {"checkpoint": identity, "form": 5, **output.for_cell()}
    return cache.get("onnx", key, "model.onnx", build, versions_of(("torch", "transformers", "onnx")))


def _stacked(calibration: CalibrationInputs, cache: ArtifactCache) -> Artifact:
    """Stack the batches, which all have the same shape, to one array [batches, batch, sequence] per input."""

    def build(path: Path) -> None:
        batches = calibration.batches()
        arrays = {name: np.stack([feeds[name] for feeds in batches]) for name in batches[0]}
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle

    return cache.get("calibration", calibration.key, "inputs.npz", build, versions_of(("numpy", "transformers")))
