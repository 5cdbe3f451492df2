"""Inputs of suite=launch: one batch of each shape, as for suite=latency."""

from __future__ import annotations

from backends.base import Artifact, Source
from backends.inputs.batches import InputSource, prepare_inputs
from suites.running.job import ExportJob
from suites.running.null_inputs import null_batches
from suites.running.prepared import Prepared


def prepare(job: ExportJob, origin: InputSource, source: Source) -> Prepared:
    return Prepared(source, prepare_inputs(origin, job.spec.shapes))


def prepare_null(job: ExportJob) -> Artifact:
    return null_batches(job.spec.cache, job.spec.shapes)
