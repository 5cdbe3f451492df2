"""The export stage of a cell with a model. Runs in the interpreter with torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from backends.base import Source
from backends.cache import ArtifactCache
from backends.inputs.batches import InputSource
from backends.inputs.lengths import Lengths
from backends.int8_learning.distillation_pair import Student
from backends.int8_learning.learn import LearnedRecipe, learn
from backends.model.checkpoint import Checkpoint, find_checkpoint
from backends.model.checkpoint_files import read_config
from backends.model.encoder_parts import encoder_parts
from backends.model.encoder_sizes import encoder_sizes
from backends.model.reference import ModelReference
from backends.onnx_.onnx_source import prepare_source
from backends.onnx_.reference_check import check_encoder, check_export
from backends.quantization_options import QuantizationOptions
from suites.running.check_model import check_model
from suites.running.job import Exported, ExportJob
from suites.running.prepared import Prepared

Prepare = Callable[[ExportJob, InputSource, Source], Prepared]


def export_model(job: ExportJob, model: ModelReference, prepare: Prepare) -> Exported:
    """Return the source to build from and the inputs to run.

    Args:
        prepare: makes the inputs of the suite.

    Raises:
        RuntimeError: files of the checkpoint changed while the cell ran.
        Unsupported: the model, or its combination with the request, is not supported.
    """
    cache = ArtifactCache(job.spec.cache)
    checkpoint = find_checkpoint(model, cache)
    if model.identity not in ("", checkpoint.identity):
        raise RuntimeError("the checkpoint's files changed while the cell ran; run it again")
    config = read_config(checkpoint.folder)
    check_model(job, config, checkpoint.folder)
    longest = max(shape.sequence for shape in job.spec.shapes)
    checked: dict[str, object] = {"encoder": check_encoder(checkpoint.folder, checkpoint.identity, longest, cache)}
    source, learned = Source(checkpoint.folder, checkpoint.weights_sha256), None
    if job.source == "onnx" or job.form.linear_ranges:
        learned = _learn(job, checkpoint, cache)
        quantization, lengths = _calibration(job)
        source = prepare_source(
            *learned.checkpoint, job.form, quantization, job.texts, job.seed, cache, learned.ranges, lengths,
            job.spec.output,
        )  # fmt: skip
        if job.form.ranges or not (job.form.arrays or job.form.linear_ranges):
            checked["export"] = check_export(*learned.checkpoint, longest, cache, job.spec.output)
    origin = InputSource(
        checkpoint.folder, checkpoint.identity, job.lengths, job.texts, job.seed, job.spec.device.reference_kind, cache,
        job.spec.output,
    )  # fmt: skip
    prepared = prepare(job, origin, source)
    return Exported(
        prepared.source,
        prepared.inputs,
        prepared.shapes or job.spec.shapes,
        checkpoint.identity,
        checkpoint.origin,
        tuple(encoder_parts(checkpoint.folder)),
        checked,
        prepared.points,
        learned.artifacts if learned else {},
        prepared.tokenization,
        encoder_sizes(config),
    )


def _calibration(job: ExportJob) -> tuple[QuantizationOptions, Lengths | None]:
    """Return the options, and the lengths of calibration sequences if they are those of the cell, else None."""
    chosen = job.spec.quantization
    if chosen.sequence:
        return chosen, None
    return replace(chosen, sequence=max(shape.sequence for shape in job.spec.shapes)), job.lengths


def _learn(job: ExportJob, checkpoint: Checkpoint, cache: ArtifactCache) -> LearnedRecipe:
    quantization, lengths = _calibration(job)
    return learn(
        Student(
            checkpoint.folder,
            checkpoint.identity,
            quantization,
            job.texts,
            job.seed,
            job.spec.device.reference_kind,
            job.form.arrays,
            job.form.floating,
            cache,
            lengths,
        )
    )
