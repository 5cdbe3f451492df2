"""Inputs of suite=alignment: one batch of each shape of the round, as for suite=latency."""

from __future__ import annotations

from typing import cast

from backends.base import Artifact, Source
from backends.inputs.batches import InputSource, prepare_inputs
from suites.alignment.suite import AlignmentQuestion
from suites.running.job import ExportJob
from suites.running.null_inputs import null_batches
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    question = cast(AlignmentQuestion, job.question)
    shapes = question.centres if question.variant is not None else job.spec.shapes
    return Prepared(source, prepare_inputs(origin, shapes), shapes)


def prepare_null(job: ExportJob) -> Artifact:
    return null_batches(job.spec.cache, job.spec.shapes)
