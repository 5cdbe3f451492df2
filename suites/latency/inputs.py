"""Inputs of suite=latency: one batch of each shape."""

from __future__ import annotations

from collections.abc import Mapping

from backends.base import Artifact, Shape, Source
from backends.inputs.batches import InputSource, prepare_inputs
from backends.json_codec import from_json
from suites.latency.tokenization import time_tokenization
from suites.running.job import ExportJob
from suites.running.null_inputs import null_batches
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    """The shapes are those of the passes, if a batch runs in several. Then the tokenizer is not timed."""
    inputs = prepare_inputs(origin, job.spec.shapes)
    shapes = from_json(Mapping[str, object], inputs.notes["shapes"], "shapes")
    tokenization = None
    if job.effort is not None and inputs.notes["tokens"] == "text" and job.lengths.passes == 1:
        tokenization = time_tokenization(origin, job.spec.shapes, job.effort, job.builder_lock)
    return Prepared(source, inputs, tuple(map(Shape.parse, shapes)), tokenization=tokenization)


def prepare_null(job: ExportJob) -> Artifact:
    return null_batches(job.spec.cache, job.spec.shapes)
